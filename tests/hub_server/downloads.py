"""How a file gets out: from git itself, or by a redirect to the storage."""

from __future__ import annotations

from tests.hub_server.hub import absent, commit_of
from tests.hub_server.reply import Refusal, Reply
from tests.hub_server.routes import Call, route


@route("GET HEAD", "/{prefix}{repo}/(?:resolve|raw)/{revision}/{path}")
def resolve(call: Call, repo: str, revision: str, path: str, kind: str = "models") -> Reply:
    found = call.hub.readable(call, repo, kind)
    commit = commit_of(found, revision)
    entry = found.tree(commit).get(path)
    headers = {"X-Repo-Commit": commit}
    if entry is None or entry.folder:
        raise Refusal(404, "Entry not found", "EntryNotFound", X_Repo_Commit=commit)
    if entry.large and "/resolve/" in call.path:
        headers["X-Linked-Etag"] = f'"{entry.large.oid}"'
        headers["X-Linked-Size"] = str(entry.size)
        headers["Location"] = call.hub.signed("get", f"/storage/{kind}/{repo}/{entry.large.oid}")
        return Reply(302, headers=headers)
    headers["ETag"] = f'"{entry.oid}"'
    headers["Content-Type"] = "text/plain; charset=utf-8"
    return Reply(200, found.blob(entry.oid), headers, ranged=True)


@route("GET HEAD", "/{prefix}{name}/resolve/{revision}/{path}")
@route("GET", "/api/{kind}/{name}(?:/revision/{revision})?")
def without_owner(call: Call, **asked: str) -> Reply:
    """The Hub has a few old repositories that belong to nobody; this one has none."""
    raise absent(call.hub.user(call))
