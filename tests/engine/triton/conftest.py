"""The kernels on a GPU where there is one, else in Triton's interpreter on the CPU."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

GPU = torch.cuda.is_available()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What runs on a real device is found by `-m gpu`."""
    for item in items:
        if GPU and item.path.parent.name == "triton":
            item.add_marker(pytest.mark.gpu)


@pytest.fixture
def device() -> torch.device:
    return torch.device("cuda" if GPU else "cpu")


@pytest.fixture(autouse=True)
def _rounds_to_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    from triton.runtime import interpreter

    from tests.engine.triton.rounding import as_on_devices

    monkeypatch.setattr(interpreter, "_convert_float", as_on_devices(interpreter._convert_float))


@pytest.fixture
def large_blocks(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """More at a time in the interpreter, to which every block is as dear as a launch."""
    from hf_winopt.engine.triton import table

    if device.type == "cpu":
        monkeypatch.setattr(table, "BLOCK", 8192)
        monkeypatch.setattr(table, "CHUNK", 8192)
        monkeypatch.setattr(table, "SPAN", 16384)
