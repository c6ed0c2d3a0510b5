"""Which parameters of an optimizer the Triton engine steps, and what it asks of their state."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import engine
from ..rules import Rule

if TYPE_CHECKING:
    from ..engine.triton.plan import Plan
    from .base import RuleOptimizer

Start = Callable[[Tensor, Rule, torch.device], dict[str, Tensor]]


def capturing(params: Iterable[Tensor]) -> bool:
    """Whether a CUDA graph is being captured on the current stream of a device of the parameters."""
    return any(p.is_cuda for p in params) and torch.cuda.is_current_stream_capturing()


def refuse_capture(backend: str) -> None:
    """Say what a capture needs that is not there."""
    raise RuntimeError(
        "a step can be captured in a graph once the same parameters have been stepped by the Triton engine outside of "
        f"one, as in torch.cuda.graph's warm-up (and again after each capture); backend is {backend!r}"
    )


def plan(
    optimizer: RuleOptimizer,
    params: Sequence[Tensor],
    grads: Sequence[Tensor | None],
    rules: Sequence[Rule],
    started: Start,
) -> Plan | None:
    """A plan for all parameters that the Triton engine can step; None where there are none.

    Args:
        params, grads, rules: of the whole optimizer: parameters, their gradients or None, the rule of each group.
        started: gives a parameter's state, made where it is missing, the step count on the device that is named.
    """
    if not any(engine.resolve(optimizer.backend, p.device) == "triton" for p in params):
        return None
    chosen, live = [], 0
    numbers = [i for i, group in enumerate(optimizer.param_groups) for _ in group["params"]]
    for p, g, group in zip(params, grads, numbers):
        if g is None:
            continue
        if engine.resolve(optimizer.backend, p.device) == "triton":
            reason = engine.reason_against_triton(p, g)
            if reason is None:
                chosen.append((live, p, g, group))
            else:
                _tell_once(optimizer, reason)
        live += 1
    if not chosen:
        return None
    from ..engine.triton.plan import Entry, Plan

    entries = {}
    for place, p, g, group in chosen:
        state = started(p, rules[group], p.device)
        _lay_out_like(p, state, rules[group])
        entries[place] = Entry(rules[group], p, g.dtype, state, group)
    return Plan(params, grads, rules, optimizer.state, entries)


def _tell_once(optimizer: RuleOptimizer, reason: str) -> None:
    """Warn that the optimizer does not take the engine that was asked for; the first reason stands for all."""
    if not vars(optimizer).get("_told"):
        vars(optimizer)["_told"] = True
        warnings.warn(
            f"stepped by the slower eager engine: {reason}", stacklevel=9
        )  # whoever called `step`, behind what torch wraps it in


def _lay_out_like(p: Tensor, state: dict[str, Tensor], rule: Rule) -> None:
    """State that was loaded may lie in another order than the parameter; the kernels walk both alike."""
    dtype = engine.compute_dtype(p.dtype)
    for name in rule.state_names:
        tensor = state[name]
        if (tensor.stride(), tensor.dtype, tensor.device) != (p.stride(), dtype, p.device):
            state[name] = torch.empty_like(p, dtype=dtype).copy_(tensor)
