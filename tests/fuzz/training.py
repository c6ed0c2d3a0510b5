"""Steps on drawn gradients, and what must be true before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hf_winopt.optim import RuleOptimizer

Snapshot = dict[str, Any]


def snapshot(optimizer: torch.optim.Optimizer) -> Snapshot:
    """All that an optimizer is and holds, its parameters and their gradients too; tensors are copied."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    return {
        "identities": [[id(p) for p in group["params"]] for group in optimizer.param_groups],
        "strides": [p.stride() for p in params],
        "params": [_copied(p) for p in params],
        "grads": [_copied(p.grad) for p in params],
        "groups": [{k: _copied(v) for k, v in group.items() if k != "params"} for group in optimizer.param_groups],
        "state": {id(p): _copied(state) for p, state in optimizer.state.items()},
        "defaults": _copied(optimizer.defaults),
        "backend": getattr(optimizer, "backend", None),
    }


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone(memory_format=torch.preserve_format)
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same, tensors bit for bit."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return (one.dtype, one.shape) == (other.dtype, other.shape) and torch.equal(_bits(one), _bits(other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and type(one) is type(other):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def _bits(tensor: Tensor) -> Tensor:
    """Its bytes, in the order of its elements."""
    return tensor.detach().flatten().clone(memory_format=torch.contiguous_format).view(torch.uint8)


def gradient(p: Tensor, scale: float, seed: int) -> Tensor:
    """Normal values of this scale, laid out as the parameter is."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(p.shape, generator=generator, dtype=torch.float64) * scale
    return torch.empty_like(p, requires_grad=False).copy_(values)


def train(optimizer: RuleOptimizer, steps: int = 2, scale: float = 1.0, seed: int = 0) -> None:
    """A few steps of all parameters that require a gradient."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for t in range(steps):
        for i, p in enumerate(params):
            if p.requires_grad:
                p.grad = gradient(p, scale, seed + 100 * t + i)
        optimizer.step()


def all_finite(optimizer: torch.optim.Optimizer) -> bool:
    """Whether every parameter and every number of the state is finite."""
    params: Sequence[Tensor] = [p for group in optimizer.param_groups for p in group["params"]]
    kept = [value for p in params for value in optimizer.state.get(p, {}).values()]
    state = [value for value in kept if isinstance(value, Tensor)]  # beside what others keep there
    return all(bool(torch.isfinite(tensor).all()) for tensor in (*params, *state))
