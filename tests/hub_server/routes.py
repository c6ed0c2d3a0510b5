"""Which function answers which request."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from tests.hub_server.body import Body
from tests.hub_server.reply import Refusal, Reply

if TYPE_CHECKING:
    from tests.hub_server.hub import Hub

# Matched on the path as it was sent: a quoted slash belongs to a revision or a file's name, not to the route.
PARTS = {
    "kind": r"(?P<kind>models|datasets|spaces)",
    "prefix": r"(?:(?P<kind>datasets|spaces)/)?",
    "repo": r"(?P<repo>[^/]+/[^/]+)",
    "revision": r"(?P<revision>[^/]+)",
    "name": r"(?P<name>[^/]+)",
    "path": r"(?P<path>.+)",
    "oid": r"(?P<oid>[0-9a-f]{64})",
    "part": r"(?P<part>\d+)",
}


@dataclass
class Call:
    """One request on its way to the function that answers it."""

    hub: Hub
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Body

    def json(self) -> Any:
        try:
            return json.loads(self.body.all())
        except ValueError as error:
            raise Refusal(400, f"the body is not JSON: {error}") from error


Answer = Callable[..., Reply]
_ROUTES: dict[str, list[tuple[str, re.Pattern[str], Answer]]] = {"hub": [], "storage": []}


def route(methods: str, template: str, side: str = "hub") -> Callable[[Answer], Answer]:
    pattern = re.compile(re.sub(r"{(\w+)}", lambda part: PARTS[part.group(1)], template))

    def register(answer: Answer) -> Answer:
        _ROUTES[side].extend((method, pattern, answer) for method in methods.split())
        return answer

    return register


def answer(call: Call, side: str) -> Reply:
    for method, pattern, function in _ROUTES[side]:
        if method == call.method and (match := pattern.fullmatch(call.path)):
            given = {name: unquote(value) for name, value in match.groupdict().items() if value is not None}
            return function(call, **given)
    raise Refusal(404, f"nothing answers {call.method} {call.path} here")
