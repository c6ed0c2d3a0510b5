"""Two processes that share parameters step them by the compiled kernels, which leave sums for them to complete.

    python -m tests.ptx.sharded

A program of its own, since the processes that it starts begin as it does, on the device of `device.py`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from torch.distributed.device_mesh import init_device_mesh

from tests.distributed.problems import Pair
from tests.distributed.processes import together

from . import plugin


def step() -> None:
    """With every kind of sum; beside an optimizer that has the parameters whole."""
    mesh = init_device_mesh("cpu", (2,))
    for name in ("lamb_win", "adan_agr", "adal_win2"):
        pair, before = Pair(name, mesh, backend="triton", max_grad_norm=0.5), plugin.device.launches
        pair.steps(3)
        pair.check(1e-5)
        assert plugin.device.launches - before >= 2 * 3 * 3, name


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        together(2, step, Path(folder))
