"""One optimizer on the parameters of `soak_problem`, and how far several of them are from each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.soak_problem import Problem
from hf_winopt import OPTIMIZERS, create_optimizer
from hf_winopt.optim import RuleOptimizer
from hf_winopt.optim.restated import values
from hf_winopt.rules import ROUNDING


def options_of(name: str, steps: int) -> dict[str, Any]:
    """All that counts steps, and clipping; each has its moment in a run of so many steps."""
    known = OPTIMIZERS[name].options
    options = {"weight_decay": 0.01, "weight_decay_gamma": 1 - 2 / steps, "max_grad_norm": 100.0}
    if known.get("agr"):
        options["agr_steps"] = steps // 2
    if "restart_every" in known:
        options["restart_every"] = restart_every(steps)
    if "inverse_sqrt_lr" in known:
        options["inverse_sqrt_lr"] = True
    return options


def groups_of(name: str, params: Sequence[torch.nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """One group; two under LAMB, which takes biases and single numbers without decay, as is usual.

    Its trust ratio would only multiply a single number by 1 +- lr a step: it could never pass through 0.
    """
    if not OPTIMIZERS[name].rule.trust_ratio:
        return [{"params": params}]
    large, small = ([p for p in params if (p.ndim > 1) == wanted] for wanted in (True, False))
    return [{"params": large, "weight_decay": weight_decay}, {"params": small, "weight_decay": 0.0}]


def restart_every(steps: int) -> int:
    return steps * 3 // 20 + 1


def rate(name: str, t: int) -> float:
    return 1e-3 * OPTIMIZERS[name].lr_scale * (1 + 0.5 * math.cos(t))


class Run:
    """One optimizer on parameters of its own."""

    def __init__(self, name: str, start: Sequence[Tensor], backend: str, options: Mapping[str, Any]) -> None:
        self.params = [torch.nn.Parameter(z.clone()) for z in start]
        groups = groups_of(name, self.params, options["weight_decay"])
        self.optimizer: RuleOptimizer = create_optimizer(name, groups, backend=backend, **options)

    def step(self, gradients: Sequence[Tensor], lr: float) -> None:
        for p, g in zip(self.params, gradients):
            p.grad = g.to(p.dtype)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()

    def tensors(self, place: int) -> dict[str, Tensor]:
        """A parameter and what is kept of it, by name; in place of distances the sequences that they lead to."""
        p = self.params[place]
        stored = self.optimizer.state[p]
        state = {name: values(stored, name) for name in stored if name != "step" and not name.endswith("_scale")}
        rounding, gap, y_gap = (state.pop(name, None) for name in (ROUNDING, "x_gap", "y_gap"))
        gap = rounding if gap is None else gap
        x = {} if gap is None else {"x": p.detach() - gap}
        y = {} if y_gap is None else {"y": x["x"] + y_gap}
        return {"z": p.detach(), **state, **x, **y}

    def counts(self) -> list[float]:
        return sorted({self.optimizer.state[p]["step"].item() for p in self.params})


class Apart:
    """How far runs have been from each other so far, by the type of the parameters.

    A difference is relative to the largest number that the tensor has held: a single number may pass through 0.
    """

    def __init__(self, problem: Problem) -> None:
        self._kinds = [str(dtype).removeprefix("torch.") for dtype in problem.dtypes]
        self._largest: dict[tuple[int, str], float] = {}
        self.engines = dict.fromkeys(self._kinds, 0.0)
        self.from_float64 = dict.fromkeys(self._kinds, 0.0)

    def look(self, eager: Run, other: Run, exact: Run) -> None:
        for place, kind in enumerate(self._kinds):
            ours, theirs = eager.tensors(place), other.tensors(place)
            for name, right in exact.tensors(place).items():
                largest = max(self._largest.get((place, name), 0.0), right.abs().max().item())
                self._largest[place, name] = largest
                mine, its = ours[name].double(), theirs[name].double()
                self._add(self.engines, kind, mine - its, largest)
                self._add(self.from_float64, kind, mine - right, largest)

    @staticmethod
    def _add(farthest: dict[str, float], kind: str, difference: Tensor, largest: float) -> None:
        relative = difference.abs().max().item() / (largest or 1.0)  # a restart leaves zeros
        farthest[kind] = relative if not relative <= farthest[kind] else farthest[kind]  # what is no number stays
