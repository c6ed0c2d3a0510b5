"""Large files: the batch request that hands out addresses, and the storage behind these addresses."""

from __future__ import annotations

from typing import Any

from tests.hub_server.reply import Refusal, Reply, as_json
from tests.hub_server.repo import Repo
from tests.hub_server.routes import Call, route

_OBJECT = "/storage/{kind}/{repo}/{oid}"


@route("POST", "/{prefix}{repo}.git/info/lfs/objects/batch")
def batch(call: Call, repo: str, kind: str = "models") -> Reply:
    asked = call.json()
    found = call.hub.writable(call, repo, kind)
    objects = [_plan(call, found, kind, each) for each in asked["objects"]]
    in_parts = any("chunk_size" in each.get("actions", {}).get("upload", {}).get("header", {}) for each in objects)
    return as_json({"transfer": "multipart" if in_parts else "basic", "objects": objects})


def _plan(call: Call, repo: Repo, kind: str, asked: dict[str, Any]) -> dict[str, Any]:
    """What the client is to do about one object; nothing where it is there already."""
    oid, size = asked["oid"], asked["size"]
    if repo.objects.size(oid) == size:
        return {"oid": oid, "size": size}
    path = f"/storage/{kind}/{repo.id}/{oid}"
    prefix = "" if kind == "models" else f"{kind}/"
    verify = {"href": f"{call.hub.url}/{prefix}{repo.id}.git/info/lfs/objects/verify"}
    upload: dict[str, Any] = {"href": call.hub.signed("put", path)}
    step = call.hub.part_size
    if size > step:
        count = -(-size // step)
        parts = {str(n): call.hub.signed("put", f"{path}/{n}") for n in range(1, count + 1)}
        upload = {"href": call.hub.signed("join", path), "header": {"chunk_size": str(step), **parts}}
    return {"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}}


@route("POST", "/{prefix}{repo}.git/info/lfs/objects/verify")
def verify(call: Call, repo: str, kind: str = "models") -> Reply:
    asked = call.json()
    size = call.hub.writable(call, repo, kind).objects.size(asked["oid"])
    if size is None:
        raise Refusal(404, f"no object {asked['oid']}")
    if size != asked["size"]:
        raise Refusal(400, f"the object has {size} bytes, not {asked['size']}")
    return as_json({})


@route("PUT", _OBJECT, side="storage")
def put(call: Call, kind: str, repo: str, oid: str) -> Reply:
    call.hub.check_signature("put", call)
    call.hub.repo(repo, kind).objects.store(oid, call.body)
    return Reply(headers={"ETag": f'"{oid}"'})


@route("PUT", _OBJECT + "/{part}", side="storage")
def put_part(call: Call, kind: str, repo: str, oid: str, part: str) -> Reply:
    call.hub.check_signature("put", call)
    digest = call.hub.repo(repo, kind).objects.store_part(oid, int(part), call.body)
    return Reply(headers={"ETag": f'"{digest}"'})


@route("POST", _OBJECT, side="storage")
def join(call: Call, kind: str, repo: str, oid: str) -> Reply:
    call.hub.check_signature("join", call)
    call.hub.repo(repo, kind).objects.join(oid, len(call.json()["parts"]))
    return as_json({})


@route("GET HEAD", _OBJECT, side="storage")
def get(call: Call, kind: str, repo: str, oid: str) -> Reply:
    call.hub.check_signature("get", call)
    found = call.hub.repo(repo, kind)
    if found.objects.size(oid) is None:
        raise Refusal(404, f"no object {oid}")
    headers = {"ETag": f'"{oid}"', "Content-Type": "application/octet-stream"}
    return Reply(200, found.objects.path(oid), headers, ranged=True)
