"""State that is kept in fewer bytes, by every rule: as by the eager engine."""

from __future__ import annotations

import pytest
import torch

from hf_winopt.optim import LAMB, SGD, AdaL, Adam, AdamW, Adan
from tests.engine.triton.levels import BF16, F16, ROWS, SMALL, both

CLASSES = {
    "AdamW": (AdamW, {}), "AdamW agr": (AdamW, {"agr": True}), "Adam": (Adam, {}), "LAMB": (LAMB, {}),
    "LAMB agr": (LAMB, {"agr": True}), "SGD": (SGD, {}), "SGD nesterov": (SGD, {"nesterov": True}),
    "Adan": (Adan, {}), "Adan agr": (Adan, {"agr": True}), "AdaL": (AdaL, {}),
}  # fmt: skip
KINDS = (
    (torch.float32, "compact"), (torch.float32, "8bit"), (BF16, "float32"), (BF16, "compact"), (F16, "8bit"),
)  # fmt: skip


pytestmark = pytest.mark.usefixtures("large_blocks")


@pytest.mark.parametrize(("dtype", "level"), KINDS, ids=str)
@pytest.mark.parametrize("acceleration", ["none", "win", "win2"])
@pytest.mark.parametrize("name", CLASSES)
def test_as_by_the_eager_engine(name, acceleration, dtype, level, device):
    make, options = CLASSES[name]
    decay = 0.1 if "agr" in name or acceleration == "win" else 0.0
    both(
        make, ROWS + SMALL, dtype, device, acceleration=acceleration, state=level, weight_decay=decay, **options
    )  # fmt: skip
