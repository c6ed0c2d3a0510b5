"""Large files of one repository: kept by their sha256 next to the git repository, which holds pointers to them."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.hub_server.reply import Refusal

_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:(?P<oid>[0-9a-f]{64})\nsize (?P<size>\d+)\n"
)


@dataclass(frozen=True)
class Pointer:
    """What git holds in place of a large file."""

    oid: str
    size: int

    @property
    def text(self) -> bytes:
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.oid}\nsize {self.size}\n".encode()

    @classmethod
    def read(cls, blob: bytes) -> Pointer | None:
        match = _POINTER.fullmatch(blob)
        return cls(match["oid"].decode(), int(match["size"])) if match else None


class Objects:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, oid: str) -> Path:
        return self.folder / oid[:2] / oid

    def part(self, oid: str, number: int) -> Path:
        return self.folder / "parts" / f"{oid}.{number}"

    def size(self, oid: str) -> int | None:
        path = self.path(oid)
        return path.stat().st_size if path.is_file() else None

    def store(self, oid: str, pieces: Iterable[bytes]) -> None:
        """Take an object in, whole and true to its name or not at all."""
        digest = _write(self.path(oid), pieces, expected=oid)
        if digest != oid:
            raise Refusal(400, f"the content has the sha256 {digest}, not {oid}")

    def store_part(self, oid: str, number: int, pieces: Iterable[bytes]) -> str:
        return _write(self.part(oid, number), pieces)

    def join(self, oid: str, count: int) -> None:
        parts = [self.part(oid, number) for number in range(1, count + 1)]
        if not all(part.is_file() for part in parts):
            raise Refusal(400, "a part is missing")
        self.store(oid, (part.read_bytes() for part in parts))
        for part in parts:
            part.unlink()


def _write(path: Path, pieces: Iterable[bytes], expected: str | None = None) -> str:
    """Write beside, then rename: a dropped connection must leave nothing under the object's name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    handle, beside = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            for piece in pieces:
                digest.update(piece)
                file.write(piece)
        if expected in (None, digest.hexdigest()):
            os.replace(beside, path)
    finally:
        Path(beside).unlink(missing_ok=True)
    return digest.hexdigest()
