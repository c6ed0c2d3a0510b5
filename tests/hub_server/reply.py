"""Answers and refusals, in the form that the client turns into its own results and exceptions."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Reply:
    """An answer; a body on disk is streamed, and a `ranged` one may be asked for in part."""

    status: int = 200
    body: bytes | Path = b""
    headers: dict[str, str] = field(default_factory=dict)
    ranged: bool = False
    _part: tuple[int, int] | None = None

    @property
    def size(self) -> int:
        return self.body.stat().st_size if isinstance(self.body, Path) else len(self.body)

    @property
    def part(self) -> tuple[int, int]:
        """The half-open part of the body that is sent."""
        return self._part or (0, self.size)

    def fitted(self, asked: dict[str, str]) -> Reply:
        """The same answer for someone who has the file already, or wants a part of it."""
        if not self.ranged:
            return self
        if asked.get("if-none-match") == self.headers["ETag"]:
            return Reply(304, headers=self.headers)
        headers = {**self.headers, "Accept-Ranges": "bytes"}
        part = span(asked.get("range", ""), self.size)
        if part is None:
            return Reply(self.status, self.body, headers)
        headers["Content-Range"] = f"bytes {part[0]}-{part[1] - 1}/{self.size}"
        return Reply(206, self.body, headers, _part=part)


class Refusal(Exception):
    """A request that is not granted. `code` is what the client tells its exceptions apart by."""

    def __init__(self, status: int, message: str, code: str = "", **headers: str) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def reply(self) -> Reply:
        line = " ".join(self.message.split()).encode("ascii", "replace").decode()
        headers = {"X-Error-Message": line, **self.headers}
        if self.code:
            headers["X-Error-Code"] = self.code
        return as_json({"error": self.message}, self.status, headers)


def as_json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Reply:
    return Reply(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})


def span(header: str, size: int) -> tuple[int, int] | None:
    """The half-open part of a body that a Range header asks for; None where it asks for all, or not in our words."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", header.strip())
    if match is None or match.group(0) == "bytes=-":
        return None
    first, last = match.groups()
    if not first:
        start, stop = max(size - int(last), 0), size
    else:
        start, stop = int(first), min(int(last) + 1, size) if last else size
    if start >= stop:
        raise Refusal(416, "the range lies outside the file", Content_Range=f"bytes */{size}")
    return start, stop
