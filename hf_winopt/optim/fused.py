"""Which parameters of an optimizer the Triton engine steps, and what it asks of their state."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import engine
from ..rules import Rule, agr_suits

if TYPE_CHECKING:
    from ..engine.shards import Sharing
    from ..engine.triton.plan import Plan
    from .base import RuleOptimizer
    from .ready import Groups
    from .shards import Shards

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
    shards: Shards,
    groups: Groups,
    started: Start,
) -> Plan | None:
    """A plan for all parameters that the Triton engine can step; None where there are none.

    Args:
        params: of the whole optimizer.
        shards: what is stepped here of each.
        groups: the rule of each group, and its length.
        started: gives a parameter's state, made where it is missing, the step count on the device that is named.
    """
    numbers = [(i, rule) for i, (rule, length) in enumerate(groups) for _ in range(length)]
    chosen = {}
    for place, p in enumerate(params):
        z, g, sharing = shards.at(place)
        stepped_before = bool(optimizer.state.get(p))
        form, rule = (z if g is None else g), numbers[place][1]
        if (g is not None or stepped_before) and _takes_triton(optimizer, z, form, rule, sharing):
            chosen[place] = form.dtype
    if not chosen:
        return None
    from ..engine.triton.batch import Entry
    from ..engine.triton.plan import Plan

    entries = {}
    for place, grad_dtype in chosen.items():
        p, z, (group, rule) = params[place], shards.zs[place], numbers[place]
        started(p, rule, z.device)
        state = _laid_out_like(p, z, optimizer.state[p], rule)
        entries[place] = Entry(rule, z, grad_dtype, state, group, agr_suits(p), shards.at(place).sharing)
    return Plan(entries, len(groups))


def _takes_triton(optimizer: RuleOptimizer, p: Tensor, g: Tensor, rule: Rule, sharing: Sharing | None) -> bool:
    """Whether the Triton engine steps a parameter; where it was to, and cannot, that is said."""
    if engine.resolve(optimizer.backend, p.device) == "triton":
        if sharing is not None and rule.takes_sums:
            _refuse_gaps(p)
        reason = engine.reason_against_triton(p, g)
    elif optimizer.backend == "auto" and p.device.type in engine.ACCELERATORS:
        reason = engine.triton_lacks()
    else:
        return False
    if reason is not None:
        _tell_once(optimizer, reason)
    return reason is None


def _refuse_gaps(shard: Tensor) -> None:
    """All processes complete a sum together, or none does: one alone cannot take another engine.

    Raises:
        ValueError: a shard that the Triton engine cannot step, though it may be able to step those of other processes.
    """
    if engine.has_gaps(shard):
        raise ValueError(
            f"the shard of a parameter must lie without gaps in memory; got one of shape {tuple(shard.shape)} with "
            f"strides {shard.stride()}. Make it contiguous, or take backend='eager'"
        )


def _tell_once(optimizer: RuleOptimizer, reason: str) -> None:
    """Warn that the optimizer does not take the engine that was asked for; the first reason stands for all."""
    if not vars(optimizer).get("_told"):
        vars(optimizer)["_told"] = True
        behind_torchs_wrappers = 10
        warnings.warn(f"stepped by the slower eager engine: {reason}", stacklevel=behind_torchs_wrappers)


def _laid_out_like(p: Tensor, z: Tensor, state: dict[str, Tensor], rule: Rule) -> dict[str, Tensor]:
    """The state of what is stepped here. What was loaded may lie in another order; the kernels walk both alike."""
    dtype = engine.compute_dtype(z.dtype)
    for name in rule.state_names:
        tensor = engine.local(state[name])
        if (tensor.stride(), tensor.dtype, tensor.device) != (z.stride(), dtype, z.device):
            state[name] = engine.like(p, torch.empty_like(z, dtype=dtype).copy_(tensor))
    return {name: engine.local(tensor) for name, tensor in state.items()}
