"""bf16 as devices treat it. Triton's interpreter cuts float32 to it, and misreads what is subnormal in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

Convert = Callable[[np.ndarray, Any, Any, Any], np.ndarray]


def as_on_devices(theirs: Convert) -> Convert:
    """The interpreter's conversion of floating point types, with that of bf16 put right."""

    def convert(data: np.ndarray, source: Any, target: Any, rounding: Any) -> np.ndarray:
        if (source.name, target.name) == ("fp32", "bf16"):  # to the nearest (see `test_machine_code`)
            rounded = torch.from_numpy(np.ascontiguousarray(data)).to(torch.bfloat16)
            return rounded.view(torch.int16).numpy().view(np.uint16)
        if (source.name, target.name) == ("bf16", "fp32"):
            return (data.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        return theirs(data, source, target, rounding)

    return convert
