"""Who is asking, which repositories there are, and the check of a card before it is pushed."""

from __future__ import annotations

from tests.hub_server.card import validate
from tests.hub_server.reply import Refusal, Reply, as_json
from tests.hub_server.routes import Call, route


@route("GET", "/api/whoami-v2")
def whoami(call: Call) -> Reply:
    user = call.hub.writer(call)
    token = {"type": "access_token", "accessToken": {"displayName": "test", "role": "write"}}
    return as_json({"type": "user", "id": user, "name": user, "fullname": user, "orgs": [], "auth": token})


@route("POST", "/api/repos/create")
def create(call: Call) -> Reply:
    asked = call.json()
    user = call.hub.writer(call, asked.get("organization"))
    kind = f"{asked.get('type') or 'model'}s"
    id = f"{asked.get('organization') or user}/{asked['name']}"
    url = f"{call.hub.url}/{'' if kind == 'models' else kind + '/'}{id}"
    # older clients say `private`, newer ones `visibility`
    private = bool(asked.get("private")) or asked.get("visibility") == "private"
    with call.hub.lock:
        repo = call.hub.repo(id, kind)
        if repo.exists:
            return as_json({"error": f"You already created this {kind[:-1]} repo: {id}", "url": url}, 409)
        repo.create(private, author=user)
    return as_json({"url": url, "name": id, "id": id, "private": private})


@route("DELETE", "/api/repos/delete")
def delete(call: Call) -> Reply:
    asked = call.json()
    user = call.hub.writer(call)
    id = f"{asked.get('organization') or user}/{asked['name']}"
    with call.hub.lock:
        call.hub.writable(call, id, f"{asked.get('type') or 'model'}s").delete()
    return as_json({})


@route("PUT", "/api/{kind}/{repo}/settings")
def settings(call: Call, kind: str, repo: str) -> Reply:
    asked = call.json()
    found = call.hub.writable(call, repo, kind)
    if "private" in asked or "visibility" in asked:
        found.private = bool(asked.get("private")) or asked.get("visibility") == "private"
    return as_json({"private": found.private})


@route("GET", "/api/{kind}/{repo}/auth-check")
def may_read(call: Call, kind: str, repo: str) -> Reply:
    call.hub.readable(call, repo, kind)
    return as_json({})


@route("GET", "/api/{kind}/{repo}/auth-check/write")
def may_write(call: Call, kind: str, repo: str) -> Reply:
    call.hub.writable(call, repo, kind)
    return as_json({})


@route("POST", "/api/validate-yaml")
def validate_yaml(call: Call) -> Reply:
    errors, warnings = validate(call.json()["content"])
    told = {"errors": [{"message": error} for error in errors], "warnings": [{"message": each} for each in warnings]}
    return as_json(told, 400 if errors else 200)


@route("GET", "/api/{kind}/{repo}/xet-(?:read|write)-token/{revision}")
def xet(call: Call, kind: str, repo: str, revision: str) -> Reply:
    raise Refusal(501, "no Xet here: set HF_HUB_DISABLE_XET=1")
