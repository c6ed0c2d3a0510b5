"""HTTP itself: read a request, let it fail where a test wants that, answer it."""

from __future__ import annotations

import socket
import sys
import traceback
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.hub_server.body import PIECE, Body
from tests.hub_server.faults import Fault, Journal, Request
from tests.hub_server.hub import Hub
from tests.hub_server.reply import Refusal, Reply, as_json
from tests.hub_server.routes import Call, answer

CLIENT_GONE = (ConnectionError, TimeoutError)


class Listener(ThreadingHTTPServer):
    """One port of the server. `side` names the routes it answers."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, hub: Hub, journal: Journal, side: str, errors: list[str]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub, self.journal, self.side, self.errors = hub, journal, side, errors
        self.host = {"hub": "127.0.0.1", "storage": "localhost"}[side]  # clients tell hosts apart by name, not by port

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is often what a test is about; anything else is our own fault."""
        if not isinstance(sys.exc_info()[1], CLIENT_GONE):
            self.errors.append(traceback.format_exc())


class Handler(BaseHTTPRequestHandler):
    server: Listener
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body go out in two writes; they must not wait for each other
    timeout = 60

    def _serve(self) -> None:
        target = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, target.path, headers.get("range", ""))
        fault = self.server.journal.enter(request)
        how = fault.how if fault else None
        if callable(how):
            how()
        if how == "drop" or callable(how):
            return self._hang_up()
        body = Body(self.rfile, headers)
        call = Call(self.server.hub, self.command, target.path, dict(parse_qsl(target.query)), headers, body)
        reply = _failure(fault) if fault and isinstance(how, int) else self._answer(call)
        body.drain()
        if how == "drop_after":
            return self._hang_up()
        request.status = reply.status
        return self._send(reply, cut=how == "cut")

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve

    def _answer(self, call: Call) -> Reply:
        try:
            return answer(call, self.server.side).fitted(call.headers)
        except Refusal as refusal:
            return refusal.reply()
        except CLIENT_GONE:
            raise
        except Exception:
            self.server.errors.append(f"{call.method} {call.path}\n{traceback.format_exc()}")
            return as_json({"error": "the server of this test is at fault"}, 500)

    def _send(self, reply: Reply, cut: bool) -> None:
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        start, stop = reply.part
        if reply.status != 304:
            self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        if self.command != "HEAD":
            self._send_body(reply.body, start, (start + stop) // 2 if cut else stop)
        return self._hang_up() if cut else None

    def _send_body(self, body: bytes | Path, start: int, stop: int) -> None:
        if isinstance(body, bytes):
            self.wfile.write(body[start:stop])
            return
        with body.open("rb") as file:
            file.seek(start)
            while start < stop:
                start += self.wfile.write(file.read(min(PIECE, stop - start)))

    def _hang_up(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *arguments: Any) -> None:
        """The journal is the log."""


def _failure(fault: Fault) -> Reply:
    message = {429: "Too Many Requests", 507: "No space left on device"}.get(int(fault.how), "Internal Error")
    headers = {"Retry-After": str(fault.retry_after)} if fault.how == 429 else {}
    return as_json({"error": message}, int(fault.how), headers)
