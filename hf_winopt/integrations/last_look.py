"""Finds what is nobody else's business in files that are about to be pushed: secrets, and where they lay."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from hf_winopt.public import is_secret

CHUNK = 1 << 23
SHORTEST_SECRET = 8
TOKEN = re.compile(rb"\bhf_[A-Za-z0-9]{34}\b")
"""As the Hub makes them."""


def private_words(folder: Path, token: str | None) -> dict[bytes, str]:
    """What must not be in a pushed file, each with what it is; it is not to be shown itself."""
    words: dict[bytes, str] = {}

    def add(word: str, what: str) -> None:
        # JSON writes what is not ASCII in its own way
        for form in (os.fsencode(word), json.dumps(word)[1:-1].encode()):
            words.setdefault(form, what)

    if token:
        add(token, "the token in use")
    for name, value in os.environ.items():
        told = is_secret(name) or name.upper().endswith(("KEY", "PASS", "PWD")) or re.search("://[^/@]+:[^/@]+@", value)
        if len(value) >= SHORTEST_SECRET and told:
            add(value, f"the value of the environment variable {name}")
    with suppress(RuntimeError):  # somebody without a home
        for home in (Path.home(), Path.home().resolve()):
            # "/root" alone is in many a vocabulary, and below "/" is everything
            if home != Path(home.anchor):
                add(f"{home}{os.sep}" if _is_trivial(home) else str(home), "the path of the home directory")
    for path in (folder.absolute(), folder.resolve()):
        if not _is_trivial(path):
            add(str(path), "the path of the folder itself")
    if not _is_trivial(Path.cwd()):
        add(str(Path.cwd()), "the path of the current folder")
    return words


def find_private(content: Path | bytes, words: Mapping[bytes, str]) -> str | None:
    """What of `words` is in a file or in bytes, or None; of a file only a piece is held in memory at a time."""
    longest = max(map(len, words), default=0) + 40  # and a token
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
        seen = b""
        while piece := file.read(CHUNK):
            seen += piece
            for word, what in words.items():
                if word in seen:
                    return what
            if TOKEN.search(seen):
                return "a token of the Hub"
            seen = seen[-longest:]  # a word may lie across two pieces
    return None


def _is_trivial(path: Path) -> bool:
    return len(path.parts) <= 2
