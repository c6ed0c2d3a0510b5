"""What the tests of levels of state share: a small model with matrices that are kept in blocks, and steps of it."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from hf_winopt import create_optimizer
from hf_winopt.optim import RuleOptimizer

LEVELS = ("float32", "compact", "8bit")
BLOCKED = ("compact", "8bit")
SHAPES = [(40, 200), (64, 64), (16, 4, 100), (9,)]
"""Blocks that are cut short, whole ones, rows of two dimensions, and a bias."""

LR = 1e-3


def model(dtype: torch.dtype = torch.float32, shapes: Iterable[tuple[int, ...]] = SHAPES) -> torch.nn.ParameterList:
    generator = torch.Generator().manual_seed(3)
    return torch.nn.ParameterList([torch.randn(shape, generator=generator).to(dtype) for shape in shapes])


def go_on(parameters: Iterable[Tensor], optimizer: torch.optim.Optimizer, seed: int, steps: int = 5) -> None:
    """Steps with random gradients."""
    parameters, generator = list(parameters), torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for p in parameters:
            p.grad = torch.randn(p.shape, generator=generator).to(p)
        optimizer.step()


def optimizer_of(name: str, parameters: Iterable[Any], state: str = "8bit", **options: Any) -> RuleOptimizer:
    return create_optimizer(name, list(parameters), state=state, backend="eager", **{"lr": LR, **options})


def everything(parameters: Iterable[Tensor], optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """All weights and all tensors of the state, in order of their names; copies."""
    states = [optimizer.state.get(p, {}) for p in parameters]
    kept = [state[name] for state in states for name in sorted(state)]
    return [tensor.detach().clone() for tensor in (*parameters, *kept)]


def same(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    """To a bit, a NaN as any other."""
    return len(ours) == len(theirs) and all(
        a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num())
        for a, b in zip(ours, theirs)
    )


def types(state: dict[str, Tensor]) -> dict[str, torch.dtype]:
    return {name: tensor.dtype for name, tensor in state.items()}


def saved(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return copy.deepcopy(optimizer.state_dict())
