"""The kernels on a GPU where there is one, else in Triton's interpreter on the CPU."""

from __future__ import annotations

import numpy as np
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
    """The interpreter cuts float32 to bf16; devices round to the nearest (see `test_machine_code`)."""
    from triton.runtime import interpreter

    theirs = interpreter._convert_float

    def convert(data, source, target, rounding):
        if source.name == "fp32" and target.name == "bf16":
            rounded = torch.from_numpy(np.ascontiguousarray(data)).to(torch.bfloat16)
            return rounded.view(torch.int16).numpy().view(np.uint16)
        return theirs(data, source, target, rounding)

    monkeypatch.setattr(interpreter, "_convert_float", convert)
