"""The body of a request, with a length or in chunks, read at most once and never past its end."""

from __future__ import annotations

from collections.abc import Iterator
from io import BufferedIOBase

PIECE = 1 << 20


class Body:
    def __init__(self, stream: BufferedIOBase, headers: dict[str, str]) -> None:
        chunked = "chunked" in headers.get("transfer-encoding", "").lower()
        self._pieces = self._chunks(stream) if chunked else self._counted(stream, int(headers.get("content-length", 0)))

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def all(self) -> bytes:
        return b"".join(self)

    def drain(self) -> None:
        """Read what nobody wanted, or the next request on this connection would begin inside it."""
        for _ in self:
            pass

    @staticmethod
    def _counted(stream: BufferedIOBase, left: int) -> Iterator[bytes]:
        while left:
            piece = stream.read(min(left, PIECE))
            if not piece:
                raise ConnectionError("the body ended early")
            left -= len(piece)
            yield piece

    @classmethod
    def _chunks(cls, stream: BufferedIOBase) -> Iterator[bytes]:
        while size := int(_line(stream).split(b";")[0], 16):
            yield from cls._counted(stream, size)
            _line(stream)
        while _line(stream).strip():  # trailers
            pass


def _line(stream: BufferedIOBase) -> bytes:
    line = stream.readline()
    if not line:
        raise ConnectionError("the body ended early")
    return line
