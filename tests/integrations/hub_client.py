"""The real client beside the loopback Hub: a process of its own, a folder to push, and what came of it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

from tests.hub_server import HubServer

if TYPE_CHECKING:
    from huggingface_hub import HfApi

ROOT = Path(__file__).parents[2]
TOKENS = {"hf_owner": "owner", "hf_other": "other"}
CARD = "---\nlicense: mit\ntags: [optimizer]\n---\n# A model\n"
LARGE = "model.safetensors"


def alone(test: Callable[[Path], None]) -> Callable[[Path], None]:
    """Run a test in a process of its own: the client reads where the Hub is once, when it is imported."""

    @wraps(test)
    def launched(tmp_path: Path) -> None:
        # whoever runs the tests in the background may have them ignore interrupts
        code = "import sys, pathlib, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        code += f"from {test.__module__} import {test.__name__} as test; test.__wrapped__(pathlib.Path(sys.argv[1]))"
        command = [sys.executable, "-c", code, str(tmp_path)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr

    return launched


@contextmanager
def hub(tmp_path: Path, part_size: int = 1 << 30) -> Iterator[tuple[HubServer, HfApi]]:
    with HubServer(tmp_path / "hub", TOKENS, part_size) as server:
        os.environ.update(server.environment(tmp_path / "home", "hf_owner"))
        from huggingface_hub import HfApi

        with patch("time.sleep"):  # the client waits before it tries again
            yield server, HfApi()


def write(folder: Path, big: bool = False) -> dict[str, bytes]:
    """A folder with a file of each kind that a Hub treats in its own way."""
    draw = random.Random(0)
    files = {
        "README.md": CARD.encode(),
        "empty.txt": b"",
        "logs/ein Maß.txt": b"one line\r\nand another\n",
        "curve.png": b"\x89PNG\r\n\x1a\n\0\0" + draw.randbytes(5_000),
        LARGE: draw.randbytes(300_000),
    }
    if big:
        files["by size.log"] = draw.randbytes(1 << 20) * 11
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return files


def read(folder: str | Path) -> dict[str, bytes]:
    paths = (path for path in Path(folder).rglob("*") if path.is_file() and ".cache" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def pushed(server: HubServer, id: str, revision: str = "main") -> dict[str, bytes]:
    files = server.files(id, revision)
    del files[".gitattributes"]  # came with the repository
    return files
