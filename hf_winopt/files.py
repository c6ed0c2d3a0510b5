"""What is written: whole files or none, and JSON that every reader accepts."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_atomically(path: Path, content: str | bytes) -> None:
    """All of the file or none of it; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(content if isinstance(content, bytes) else content.encode())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def check_place(path: Path | None, option: str) -> None:
    """Find out whether a file can be written there before the minutes of measuring, not after; None is no file.

    Raises:
        OSError: a folder stands there, or its folder cannot be made.
    """
    if path is None:
        return
    if path.is_dir():
        raise IsADirectoryError(f"{option} {path} is a folder")
    path.parent.mkdir(parents=True, exist_ok=True)


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    """`plain(value)` as JSON, all of it or nothing."""
    write_atomically(path, json.dumps(plain(value), indent=indent, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """`value` in JSON's own types; a number that is not finite becomes null, for JSON has no word for it."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
