"""Two engines beside each other at a level of state."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hf_winopt import create_optimizer

SHAPES = [(64, 200), (70, 128), (16, 8, 3, 24), (64,), (3, 5)]
"""Blocks that are filled up, whole ones, a row over several dimensions, and parameters that stay in float32."""

CODES = (torch.int8, torch.uint8)
MOST = 1e-3
"""The share of codes that may flip, by one, where the last bits before them differ."""


def stepped(backend: str, name: str, level: str, dtype: torch.dtype, steps: int, **options: Any) -> tuple[Any, Any]:
    generator = torch.Generator().manual_seed(5)
    params = [torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in SHAPES]
    optimizer = create_optimizer(name, params, lr=1e-2, weight_decay=0.1, backend=backend, state=level, **options)
    for _ in range(steps):
        for p in params:
            p.grad = 1e-3 * torch.randn(p.shape, generator=generator).to(dtype)
        optimizer.step()
    return params, optimizer


def assert_as_eager(
    backend: str, name: str, level: str, dtype: torch.dtype, steps: int = 4, **options: Any
) -> list[Tensor]:
    """Step by both; the parameters that the engine left."""
    (ours, mine), (theirs, eager) = (stepped(each, name, level, dtype, steps, **options) for each in (backend, "eager"))
    flipped = codes = 0
    for p, q in zip(ours, theirs):
        torch.testing.assert_close(p, q, rtol=1e-2 if dtype != torch.float32 else 1e-5, atol=2e-4)
        assert mine.state[p].keys() == eager.state[q].keys()
        for key, value in eager.state[q].items():
            own = mine.state[p][key]
            assert (own.dtype, own.shape, own.stride()) == (value.dtype, value.shape, value.stride())
            if own.dtype in CODES:
                apart = (own.int() - value.int()).abs()
                flipped, codes = flipped + int(apart.count_nonzero()), codes + apart.numel()
                assert apart[value.abs() > 4].max() <= 1, key
    assert flipped <= MOST * max(codes, 1) + 1
    return [p.detach() for p in ours]
