"""Small problems on which an optimizer and the oracle are stepped side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_winopt.optim import RuleOptimizer
from hf_winopt.rules import Rule
from tests.oracle import Oracle, Spec

SHAPES = ((3, 4), (5,), (), (0,), (2, 3, 4), (1, 1))
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}


def parameters(
    shapes: Sequence[tuple[int, ...]], dtype: torch.dtype, device: torch.device | str = "cpu"
) -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.randn(shape, dtype=dtype).to(device)) for shape in shapes]


def as_array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().cpu().numpy().copy()


def warm_up(t: int) -> float:
    """A rate that starts at 0, rises for ten steps and then changes every step."""
    return 1e-2 * min(1.0, t / 10) * (1 + 0.3 * np.cos(t))


def follows_oracle(
    make: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer],
    spec: Spec,
    dtype: torch.dtype,
    steps: int = 60,
    shapes: Sequence[tuple[int, ...]] = SHAPES,
    device: torch.device | str = "cpu",
) -> torch.optim.Optimizer:
    """Step both on the same gradients, some of them missing, and compare parameters and state at the end."""
    params = parameters(shapes, dtype, device)
    optimizer, oracle = make(params), Oracle([as_array(p) for p in params], spec)
    for t in range(steps):
        grads = [
            None if (i + t) % 7 == 3 else torch.randn(p.shape, dtype=dtype).to(device) for i, p in enumerate(params)
        ]
        copies = [None if g is None else g.clone() for g in grads]
        for p, g in zip(params, grads):
            p.grad = g
        for group in optimizer.param_groups:
            group["lr"] = warm_up(t)
        optimizer.step()
        oracle.step([None if g is None else as_array(g) for g in grads], lr=warm_up(t))
        for g, before in zip(grads, copies):
            assert g is None or torch.equal(g, before), "a gradient was modified"
    for p, z, state in zip(params, oracle.params, oracle.state):
        assert_near(p, z, TOLERANCE[dtype])
        for name, value in state.items():
            assert_near(kept(optimizer, p, name), value, TOLERANCE[dtype])
    return optimizer


def all_kept(optimizer: torch.optim.Optimizer, p: Tensor) -> dict[str, Tensor]:
    """All that is kept of a parameter, by the oracle's names; what engines are to agree on."""
    names = {"x_gap": "x", "y_gap": "y", "rounding": "x"}
    return {names.get(name, name): kept(optimizer, p, names.get(name, name)) for name in optimizer.state[p]}


def kept(optimizer: torch.optim.Optimizer, p: Tensor, name: str) -> Tensor:
    """What an optimizer keeps of a parameter, by the oracle's name: the sequences `x` and `y` as the distances say."""
    state = optimizer.state[p]
    if name not in ("x", "y"):
        return state[name]
    z = p.detach()
    x = z - state["x_gap"] if "x_gap" in state else z.float() + state["rounding"].float() / 4096
    return x if name == "x" else x + state["y_gap"]


def assert_near(ours: Tensor, theirs: np.ndarray, tolerance: float) -> None:
    """Equal within `tolerance`, relative to each element or to the tensor's largest, whichever is more."""
    largest = float(np.max(np.abs(theirs), initial=0.0))
    np.testing.assert_allclose(as_array(ours), theirs, rtol=tolerance, atol=tolerance * largest)


def optimizer_of(rule: Rule, params: Any, backend: str = "eager", **options: Any) -> RuleOptimizer:
    """An optimizer that follows any rule, published or not."""
    every = {
        "lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "weight_decay_gamma": 1.0,
        "momentum": 0.9, "dampening": 0.0, "reckless_steps": (2, 8), "agr_steps": None, "max_grad_norm": 0.0,
        "maximize": False, "inverse_sqrt_lr": False,
    }  # fmt: skip

    class AnyRule(RuleOptimizer):
        @classmethod
        def rule(cls, options: Mapping[str, Any]) -> Rule:
            return rule

        checks = {"betas": lambda name, value: None}  # noqa: RUF012

    return AnyRule(params, every | options, backend)
