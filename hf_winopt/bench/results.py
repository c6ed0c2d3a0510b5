"""Figures on disk, as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..files import write_atomically

Result = dict[str, Any]


def save(path: Path, result: Result) -> None:
    """Write all of the file or none of it; folders are made."""
    write_atomically(path, json.dumps(result, indent=1) + "\n")


def load(path: Path) -> Result:
    """Read what `save` wrote.

    Raises:
        OSError: no such file.
        ValueError: the file holds something else.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    if not isinstance(result, dict) or not {"shapes", "elements", "machine", "rows"} <= result.keys():
        raise ValueError(f"{path} holds no figures of `hf-winopt bench`")
    return result
