"""What was asked, in order of arrival, and which of it is to fail."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

How = Literal["drop", "drop_after", "cut"] | int | Callable[[], object]


@dataclass
class Request:
    """One request as it arrived. `status` is 0 until it is answered, and stays 0 where the connection was dropped."""

    method: str
    path: str
    range: str = ""
    status: int = 0


@dataclass
class Fault:
    """A failure to come.

    `how` is a status to answer with, "drop" (before the work), "drop_after" (the work done, no answer), "cut" (half
    of the body, then nothing) or a function to call before such a "drop". It strikes `times` requests in a row, from
    the `at`-th among those whose "METHOD path" holds the pattern `of`.
    """

    at: int
    how: How
    times: int = 1
    of: str = ""
    retry_after: int = 1
    struck: list[Request] = field(default_factory=list)
    _seen: int = 0

    def strikes(self, request: Request) -> bool:
        if not re.search(self.of, f"{request.method} {request.path}"):
            return False
        self._seen += 1
        if not self.at <= self._seen < self.at + self.times:
            return False
        self.struck.append(request)
        return True


class Journal:
    """All requests so far and all faults to come; the clients upload from several threads."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def plan(self, fault: Fault) -> Fault:
        with self._lock:
            self._faults.append(fault)
        return fault

    def forgive(self) -> None:
        """Let go of faults that have not struck yet."""
        with self._lock:
            self._faults.clear()

    def enter(self, request: Request) -> Fault | None:
        """Write the request down; every fault counts it, the first that is due strikes."""
        with self._lock:
            self.requests.append(request)
            due = [fault for fault in self._faults if fault.strikes(request)]
            return due[0] if due else None
