"""For pytest: the kernels of this process are compiled, and run on the device of `device.py`.

    python -m pytest -p tests.ptx.plugin tests/engine/triton tests/ptx/planted.py

Tests take it for the interpreter, which steps parameters on the CPU too. Of those that know several engines, as outside
of tests/engine/triton, only Triton's are run.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

os.environ.pop("TRITON_INTERPRET", None)

from .device import install

device = install()

from hf_winopt.engine.triton import around, plan  # noqa: E402, F401  with them come the kernels

os.environ["TRITON_INTERPRET"] = "1"  # from here on it says only that parameters on the CPU will do

if TYPE_CHECKING:
    import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    others = [item for item in items if not _is_of_triton(item)]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]
    for item in items:
        for lengths in {"short_lengths", "large_blocks"}.intersection(item.fixturenames):
            item.fixturenames.remove(lengths)  # they are to spare the interpreter time


def _is_of_triton(item: pytest.Item) -> bool:
    engine = getattr(item, "callspec", None) and item.callspec.params.get("backend")
    return engine == "triton" or (engine is None and "optim" not in item.path.parts)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"launches: {device.launches}")
