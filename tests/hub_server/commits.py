"""How files get in: each is told its way first, then all of them go into one commit."""

from __future__ import annotations

import base64
import json
from fnmatch import fnmatch
from typing import Any

from tests.hub_server.hub import commit_of
from tests.hub_server.objects import Pointer
from tests.hub_server.reply import Refusal, Reply, as_json
from tests.hub_server.repo import Entry, Repo
from tests.hub_server.routes import Call, route

MOST_REGULAR = 10 * 1024 * 1024  # bytes that git takes itself


@route("POST", "/api/{kind}/{repo}/preupload/{revision}")
def preupload(call: Call, kind: str, repo: str, revision: str) -> Reply:
    found = call.hub.writable(call, repo, kind)
    asked = call.json()
    tree = found.tree(commit_of(found, revision))
    patterns = _large_patterns(_text(found, tree, ".gitattributes"))
    rules = asked.get("gitIgnore") or _text(found, tree, ".gitignore")
    ignored = found.ignored(rules, [file["path"] for file in asked["files"]]) if rules else set()
    told = [
        {
            "path": file["path"],
            "uploadMode": "lfs" if _is_large(file, patterns) else "regular",
            "shouldIgnore": file["path"] in ignored,
            "oid": _known(tree.get(file["path"])),
        }
        for file in asked["files"]
    ]
    return as_json({"files": told, "commitOid": found.find(revision)})


def _text(repo: Repo, tree: dict[str, Entry], path: str) -> str:
    return repo.content(tree[path]).decode() if path in tree else ""


def _large_patterns(attributes: str) -> list[str]:
    return [line.split()[0] for line in attributes.splitlines() if "filter=lfs" in line.split()[1:]]


def _is_large(file: dict[str, Any], patterns: list[str]) -> bool:
    """By name, by size, or because the beginning of it is no text."""
    names = (file["path"], file["path"].rsplit("/", 1)[-1])
    by_name = any(fnmatch(name, pattern) for name in names for pattern in patterns)
    return by_name or file["size"] > MOST_REGULAR or b"\0" in base64.b64decode(file.get("sample") or "")


def _known(entry: Entry | None) -> str | None:
    """What the client compares its own file with, to leave out what has not changed."""
    if entry is None or entry.folder:
        return None
    return entry.large.oid if entry.large else entry.oid


@route("POST", "/api/{kind}/{repo}/commit/{revision}")
def commit(call: Call, kind: str, repo: str, revision: str) -> Reply:
    found = call.hub.writable(call, repo, kind)
    author = call.hub.writer(call)
    if "create_pr" in call.query:
        raise Refusal(501, "no pull requests here")
    try:
        lines = [json.loads(line) for line in call.body.all().splitlines() if line.strip()]
        header = next(line["value"] for line in lines if line["key"] == "header")
    except (ValueError, StopIteration) as error:
        raise Refusal(400, "the body is no list of operations") from error
    with call.hub.lock:
        head = commit_of(found, f"refs/heads/{revision}")
        expected = header.get("parentCommit")
        if expected and not head.startswith(expected):
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        changes = _changes(found, found.tree(head), lines)
        message = "\n\n".join(filter(None, (header["summary"], header.get("description"))))
        oid = found.commit(revision, changes, message, author)
    prefix = "" if kind == "models" else f"{kind}/"
    url = f"{call.hub.url}/{prefix}{repo}/commit/{oid}"
    return as_json({"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})


def _changes(repo: Repo, tree: dict[str, Entry], lines: list[dict[str, Any]]) -> dict[str, bytes | None]:
    """What git shall hold at each path that changes, None where nothing."""
    changes: dict[str, bytes | None] = {}
    for line in lines:
        key, value = line["key"], line["value"]
        if key == "file":
            changes[value["path"]] = base64.b64decode(value["content"])
        elif key == "lfsFile":
            changes[value["path"]] = _pointer(repo, value).text
        elif key in ("deletedFile", "deletedFolder"):
            changes.update(dict.fromkeys(_deleted(tree, value["path"], key == "deletedFolder")))
        elif key != "header":
            raise Refusal(400, f"unknown operation {key}")
    for path in changes:
        if {"", ".", "..", ".git"} & {*path.split("/")}:  # which git would leave out without a word
            raise Refusal(400, f"{path!r} is no path in a repository")
    return changes


def _pointer(repo: Repo, value: dict[str, Any]) -> Pointer:
    size = repo.objects.size(value["oid"])
    if size is None:
        raise Refusal(400, f"LFS pointer pointed to a file that does not exist: {value['path']}")
    if value.get("size") not in (None, size):
        raise Refusal(400, f"{value['path']} has {size} bytes, not {value['size']}")
    return Pointer(value["oid"], size)


def _deleted(tree: dict[str, Entry], path: str, folder: bool) -> list[str]:
    path = path.rstrip("/")
    if path not in tree or tree[path].folder != folder:
        raise Refusal(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
    if not folder:
        return [path]
    return [each for each, entry in tree.items() if each.startswith(f"{path}/") and not entry.folder]
