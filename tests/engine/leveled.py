"""Two engines beside each other at a level of state, each step from the same bits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hf_winopt import create_optimizer

SHAPES = [(64, 200), (70, 128), (16, 8, 3, 24), (64,), (3, 5)]
"""Blocks that are filled up, whole ones, a row over several dimensions, and parameters that stay in float32."""

CODES = (torch.int8, torch.uint8)
LR = 1e-2
MOST = 1e-3
"""The share of codes that may flip, by one, where the last bits before them differ."""


class Pair:
    """The same parameters with an engine and with the eager one."""

    def __init__(self, backend: str, name: str, dtype: torch.dtype, shapes: list[tuple[int, ...]], **options: Any):
        self._generator = torch.Generator().manual_seed(5)
        values = [torch.randn(shape, generator=self._generator).to(dtype) for shape in shapes]
        self.ours, self.theirs = ([torch.nn.Parameter(value.clone()) for value in values] for _ in range(2))
        options = {"lr": LR, "weight_decay": 0.1, **options}
        self.mine = create_optimizer(name, self.ours, backend=backend, **options)
        self.eager = create_optimizer(name, self.theirs, backend="eager", **options)
        self.flipped = self.codes = 0

    def step(self) -> None:
        """A step of both, compared; then both have what the eager one has."""
        for p, q in zip(self.ours, self.theirs):
            p.grad = 1e-3 * torch.randn(p.shape, generator=self._generator).to(p.dtype)
            q.grad = p.grad.clone()
        self.mine.step()
        self.eager.step()
        for p, q in zip(self.ours, self.theirs):
            # LAMB takes its direction from the codes: where one flips, its element moves otherwise
            close = torch.isclose(p, q, rtol=1e-2 if p.dtype != torch.float32 else 1e-5, atol=2e-4)
            assert (~close).sum() <= MOST * p.numel() and (p - q).abs().max() <= LR
            assert self.mine.state[p].keys() == self.eager.state[q].keys()
            for key, value in self.eager.state[q].items():
                own = self.mine.state[p][key]
                if key == "x_gap" and own.dtype == torch.float32:  # where z rounds otherwise, so does it: x is the same
                    self._compare("x", p.detach().float() - own, q.detach().float() - value)
                else:
                    self._compare(key, own, value)
                self.mine.state[p][key].copy_(value)
            p.data.copy_(q.data)

    def _compare(self, key: str, own: Tensor, value: Tensor) -> None:
        assert (own.dtype, own.shape, own.stride()) == (value.dtype, value.shape, value.stride())
        if own.dtype in CODES:
            apart = (own.int() - value.int()).abs()
            self.flipped, self.codes = self.flipped + int(apart.count_nonzero()), self.codes + apart.numel()
            far = apart[value.abs() > 4]
            assert not far.numel() or far.max() <= 1, key
        elif own.dtype == torch.float32:
            torch.testing.assert_close(own, value, rtol=1e-4, atol=1e-6, msg=lambda text: f"{key}: {text}")


def assert_as_eager(
    backend: str,
    name: str,
    level: str,
    dtype: torch.dtype,
    steps: int = 4,
    shapes: list[tuple[int, ...]] = SHAPES,
    **options: Any,
) -> None:
    """Step by both, each step from the same bits."""
    pair = Pair(backend, name, dtype, shapes, state=level, **options)
    for _ in range(steps):
        pair.step()
    assert pair.flipped <= MOST * max(pair.codes, 1) + 1
