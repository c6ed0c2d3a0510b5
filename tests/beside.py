"""torchao and bitsandbytes, installed beside the other packages, since transformers imports them where it finds them.

Tests of them are run once more, in a process that has them on its path.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

FOLDER = Path(sys.prefix) / "beside"
HERE = all(importlib.util.find_spec(name) for name in ("torchao", "bitsandbytes"))
"""Whether this process has them."""


def of_this_process(names: Iterable[str]) -> list[str]:
    """Those that this process can try: with the libraries what needs them, without them all others."""
    return [name for name in names if bool(re.search("8bit|bitsandbytes|torchao", name)) == HERE]


def passes_with_them(file: str) -> int:
    """Run the tests of a file that need them; how many have passed, and none may do otherwise."""
    if not FOLDER.exists():
        pytest.skip(f"torchao and bitsandbytes are not in {FOLDER}, where `make` installs them")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(FOLDER), *sys.path])}
    line = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        "(8bit or bitsandbytes or torchao) and not beside",
        file,
    ]
    told = subprocess.run(line, env=environment, capture_output=True, text=True)
    summary = re.search(r"(\d+) passed(?:, (?:\d+ deselected|\d+ warnings?))* in", told.stdout)
    assert told.returncode == 0 and summary, told.stdout[-5000:] + told.stderr[-2000:]
    return int(summary[1])
