"""Branches and tags."""

from __future__ import annotations

from tests.hub_server.hub import commit_of
from tests.hub_server.reply import Refusal, Reply, as_json
from tests.hub_server.routes import Call, route


@route("GET", "/api/{kind}/{repo}/refs")
def refs(call: Call, kind: str, repo: str) -> Reply:
    found = call.hub.readable(call, repo, kind)

    def told(under: str) -> list[dict[str, str]]:
        listed = found.refs(under).items()
        return [{"name": name, "ref": f"refs/{under}/{name}", "targetCommit": oid} for name, oid in listed]

    return as_json({"branches": told("heads"), "tags": told("tags"), "converts": [], "pullRequests": []})


@route("POST", "/api/{kind}/{repo}/branch/{name}")
def create_branch(call: Call, kind: str, repo: str, name: str) -> Reply:
    return _create(call, kind, repo, f"refs/heads/{name}", call.json().get("startingPoint") or "main")


@route("POST", "/api/{kind}/{repo}/tag/{revision}")
def create_tag(call: Call, kind: str, repo: str, revision: str) -> Reply:
    return _create(call, kind, repo, f"refs/tags/{call.json()['tag']}", revision)


def _create(call: Call, kind: str, repo: str, ref: str, start: str) -> Reply:
    found = call.hub.writable(call, repo, kind)
    with call.hub.lock:
        if found.find(ref):
            raise Refusal(409, f"{ref} already exists")
        found.git("update-ref", ref, commit_of(found, start))
    return as_json({})


@route("DELETE", "/api/{kind}/{repo}/branch/{name}")
def delete_branch(call: Call, kind: str, repo: str, name: str) -> Reply:
    if name == "main":
        raise Refusal(403, "main cannot be deleted")
    return _delete(call, kind, repo, f"refs/heads/{name}")


@route("DELETE", "/api/{kind}/{repo}/tag/{name}")
def delete_tag(call: Call, kind: str, repo: str, name: str) -> Reply:
    return _delete(call, kind, repo, f"refs/tags/{name}")


def _delete(call: Call, kind: str, repo: str, ref: str) -> Reply:
    found = call.hub.writable(call, repo, kind)
    with call.hub.lock:
        commit_of(found, ref)
        found.git("update-ref", "-d", ref)
    return as_json({})
