"""Programs of this folder in processes of their own: in one process Triton either compiles or interprets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(module: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A module as a program, without what pytest and Triton were told in this process, and without a GPU."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "TRITON_"))}
    env |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=env, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
