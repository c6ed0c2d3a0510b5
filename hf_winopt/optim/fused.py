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
    from ..engine.triton.premises import Groups
    from .base import RuleOptimizer

Start = Callable[[Tensor, Rule, torch.device], dict[str, Tensor]]


def capturing(params: Iterable[Tensor]) -> bool:
    """Whether a CUDA graph is being captured on the current stream of a device of the parameters."""
    return any(p.is_cuda for p in params) and torch.cuda.is_current_stream_capturing()


def refuse_capture(optimizer: RuleOptimizer, params: Iterable[Tensor], why: str) -> None:
    """
    Raises:
        RuntimeError: a CUDA graph is being captured, which cannot be, and why.
    """
    if capturing(params):
        raise RuntimeError(f"this step cannot be captured in a graph: {why} (backend={optimizer.backend!r})")


def plan(
    optimizer: RuleOptimizer,
    params: Sequence[Tensor],
    grads: Sequence[Tensor | None],
    groups: Groups,
    started: Start,
) -> Plan | None:
    """A plan for all parameters that the Triton engine can step; None where there are none.

    Args:
        params, grads: of the whole optimizer: parameters, and their gradients or None.
        groups: the rule of each group, and its length.
        started: gives a parameter's state, made where it is missing, the step count on the device that is named.
    """
    numbers = [(i, rule) for i, (rule, length) in enumerate(groups) for _ in range(length)]
    chosen = {}
    for place, (p, g) in enumerate(zip(params, grads)):
        stepped_before = bool(optimizer.state.get(p))
        if (g is not None or stepped_before) and _takes_triton(optimizer, p, p if g is None else g):
            chosen[place] = p.dtype if g is None else g.dtype
    if not chosen:
        return None
    from ..engine.triton.batch import Entry
    from ..engine.triton.plan import Plan
    from ..engine.triton.premises import Premises

    entries = {}
    for place, grad_dtype in chosen.items():
        p, (group, rule) = params[place], numbers[place]
        state = started(p, rule, p.device)
        _lay_out_like(p, state, rule)
        entries[place] = Entry(rule, p, grad_dtype, state, group)
    return Plan(entries, len(groups), Premises(params, grads, groups, optimizer.state, entries))


def _takes_triton(optimizer: RuleOptimizer, p: Tensor, g: Tensor) -> bool:
    """Whether the Triton engine steps a parameter; where it was to, and cannot, that is said."""
    if engine.resolve(optimizer.backend, p.device) == "triton":
        reason = engine.reason_against_triton(p, g)
    elif optimizer.backend == "auto" and p.device.type in engine.ACCELERATORS:
        reason = engine.triton_lacks()
    else:
        return False
    if reason is not None:
        _tell_once(optimizer, reason)
    return reason is None


def _tell_once(optimizer: RuleOptimizer, reason: str) -> None:
    """Warn that the optimizer does not take the engine that was asked for; the first reason stands for all."""
    if not vars(optimizer).get("_told"):
        vars(optimizer)["_told"] = True
        behind_torchs_wrappers = 10
        warnings.warn(f"stepped by the slower eager engine: {reason}", stacklevel=behind_torchs_wrappers)


def _lay_out_like(p: Tensor, state: dict[str, Tensor], rule: Rule) -> None:
    """State that was loaded may lie in another order than the parameter; the kernels walk both alike."""
    dtype = engine.compute_dtype(p.dtype)
    for name in rule.state_names:
        tensor = state[name]
        if (tensor.stride(), tensor.dtype, tensor.device) != (p.stride(), dtype, p.device):
            state[name] = torch.empty_like(p, dtype=dtype).copy_(tensor)
