"""What a repository holds: its description, its trees, its history."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, quote

import yaml

from tests.hub_server.card import metadata
from tests.hub_server.hub import commit_of
from tests.hub_server.reply import Refusal, Reply, as_json
from tests.hub_server.repo import Entry, Repo
from tests.hub_server.routes import Call, route

PAGE = 1000


@route("GET", "/api/{kind}/{repo}")
@route("GET", "/api/{kind}/{repo}/revision/{revision}")
def info(call: Call, kind: str, repo: str, revision: str = "main") -> Reply:
    found = call.hub.readable(call, repo, kind)
    commit = commit_of(found, revision)
    history, tree = found.history(commit), found.tree(commit)
    told = {
        "_id": repo,
        "id": repo,
        "modelId": repo,
        "author": repo.split("/")[0],
        "sha": commit,
        "lastModified": history[0].date,
        "createdAt": history[-1].date,
        "private": found.private,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "siblings": [_sibling(entry, "blobs" in call.query) for entry in tree.values() if not entry.folder],
    }
    card = _card(found, tree)
    tags = [*card.get("tags", []), card.get("library_name"), card.get("pipeline_tag")]
    told["tags"] = [tag for tag in tags if isinstance(tag, str)]
    if card:
        told["cardData"] = card
    return as_json({**{key: card[key] for key in ("library_name", "pipeline_tag") if key in card}, **told})


def _card(repo: Repo, tree: dict[str, Entry]) -> dict[str, Any]:
    """The metadata of the card as a repository holds it, which nobody has to have checked."""
    if "README.md" not in tree:
        return {}
    try:
        data = metadata(repo.content(tree["README.md"]).decode())
    except (yaml.YAMLError, UnicodeDecodeError):
        return {}
    return data if isinstance(data, dict) else {}


def _sibling(entry: Entry, full: bool) -> dict[str, Any]:
    if not full:
        return {"rfilename": entry.path}
    told: dict[str, Any] = {"rfilename": entry.path, "size": entry.size, "blobId": entry.oid}
    if entry.large:
        told["lfs"] = {"sha256": entry.large.oid, "size": entry.size, "pointerSize": len(entry.large.text)}
    return told


def _listed(entry: Entry) -> dict[str, Any]:
    told: dict[str, Any] = {"type": "directory" if entry.folder else "file", "path": entry.path, "oid": entry.oid}
    told["size"] = entry.size
    if entry.large:
        told["lfs"] = {"oid": entry.large.oid, "size": entry.size, "pointerSize": len(entry.large.text)}
    return told


@route("GET", "/api/{kind}/{repo}/tree/{revision}(?:/{path})?")
def tree(call: Call, kind: str, repo: str, revision: str, path: str = "") -> Reply:
    found = call.hub.readable(call, repo, kind)
    entries = found.tree(commit_of(found, revision))
    if path and not (path in entries and entries[path].folder):
        raise Refusal(404, f"{path} does not exist on {revision}", "EntryNotFound")
    inside = f"{path}/" if path else ""
    deep = call.query.get("recursive", "").lower() in ("1", "true")
    chosen = [
        _listed(entry)
        for entry in entries.values()
        if entry.path.startswith(inside) and (deep or "/" not in entry.path.removeprefix(inside))
    ]
    return _page(call, chosen)


@route("POST", "/api/{kind}/{repo}/paths-info/{revision}")
def paths_info(call: Call, kind: str, repo: str, revision: str) -> Reply:
    found = call.hub.readable(call, repo, kind)
    entries = found.tree(commit_of(found, revision))
    if call.headers.get("content-type", "").startswith("application/json"):
        paths = call.json()["paths"]
    else:
        paths = parse_qs(call.body.all().decode()).get("paths", [])
    wanted = [path.strip("/") for path in paths]
    return as_json([_listed(entries[path]) for path in wanted if path in entries])


@route("GET", "/api/{kind}/{repo}/commits/{revision}")
def commits(call: Call, kind: str, repo: str, revision: str) -> Reply:
    found = call.hub.readable(call, repo, kind)
    told = [
        {
            "id": each.oid,
            "title": each.title,
            "message": each.message,
            "date": each.date,
            "authors": [_user(each.author)],
        }
        for each in found.history(commit_of(found, revision))
    ]
    return _page(call, told)


def _user(name: str) -> dict[str, str]:
    return {"user": name, "avatar": ""}


def _page(call: Call, items: list[Any]) -> Reply:
    """A long list comes in pages, each naming the next in its Link header."""
    start = int(call.query.get("cursor", 0))
    size = min(int(call.query.get("limit", PAGE)), PAGE)
    headers = {}
    if start + size < len(items):
        rest = {**call.query, "cursor": str(start + size)}
        query = "&".join(f"{quote(key)}={quote(value)}" for key, value in rest.items())
        headers["Link"] = f'<{call.hub.url}{call.path}?{query}>; rel="next"'
    return as_json(items[start : start + size], headers=headers)
