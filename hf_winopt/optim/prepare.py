"""Makes ready what the steps of an optimizer go by: which engine steps which parameter, and what is kept of it.

All is checked before state is started: a step that is refused has changed nothing. The Triton engine finds out only on
the device whether a step is left out, and so has its state from the start; what others step has it when it is stepped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from .. import engine
from ..rules import Rule, agr_suits, scale_of
from . import state as states
from .gathered import Gathered, Shard
from .kept import Kept
from .levels import rule_for
from .parameters import check_memory, check_trained
from .ready import Asks, Ready, work_of
from .restated import scale_shape
from .state import HoldsState

if TYPE_CHECKING:
    from ..engine.triton.plan import Plan

Tell = Callable[[str], None]


class _Chosen(NamedTuple):
    """A parameter that can be stepped: its group's number and rule, its engine, and whether it has addresses."""

    param: Tensor
    shard: Shard
    group: int
    rule: Rule
    engine: str
    has_addresses: bool


def prepare(optimizer: HoldsState, gathered: Gathered, asks: Asks, tell: Tell) -> Ready:
    """Make ready the parameters that have a gradient, or whose state is complete.

    Args:
        optimizer: whose state is used, and started where it is missing.
        gathered: the parameters and gradients of this step.
        asks: what is asked for.
        tell: says why a parameter is not stepped by the engine that was to.

    Raises:
        TypeError, ValueError: a parameter, a gradient or state that cannot be stepped; nothing has been changed.
    """
    kept = optimizer._own_state
    asked = [(number, rule) for number, (rule, length) in enumerate(asks.groups) for _ in range(length)]
    rules = [rule_for(rule, param) for param, (_, rule) in zip(gathered.params, asked)]
    chosen = {}
    for i, (param, (group, _), rule) in enumerate(zip(gathered.params, asked, rules)):
        shard, state = gathered.at(i), kept.get(param, {})
        if shard.g is not None or states.is_complete(state, rule):
            chosen[i] = _Chosen(param, shard, group, rule, *_engine_of(shard, state, rule, asks.backend, tell))
    planned = {i: each for i, each in chosen.items() if each.engine == "triton"}
    for each in planned.values():
        states.start(kept[each.param], each.param, each.rule, each.shard.z.device)
    plan = _plan(kept, planned, len(asks.groups))
    works = {
        i: work_of(each.param, each.shard, kept[each.param], each.rule, each.engine, remembered=True)
        for i, each in chosen.items()
        if i not in planned
        and each.has_addresses
        and states.is_started(kept.get(each.param, {}), each.shard.z, each.rule)
    }
    known = {i: each for i, each in chosen.items() if i in planned or i in works}
    names = {each.param: ("step", *each.rule.kept) for each in known.values()}
    held = [tensor for work in works.values() for tensor in (work.step, *work.state.values())]
    others = {i: each.engine for i, each in chosen.items() if i not in known}
    fleeting = {i for i, each in chosen.items() if not each.has_addresses}
    fleeting |= {i for i, param in enumerate(gathered.params) if is_lazy(param)}
    return Ready(asks, gathered, rules, Kept(kept, names, held), plan, works, others, fleeting)


def _engine_of(shard: Shard, state: Mapping[str, Any], rule: Rule, backend: str, tell: Tell) -> tuple[str, bool]:
    """Check a parameter; which engine steps it, and whether addresses say anything of it."""
    z, g = shard.z, shard.g
    if g is not None:
        check_trained([z])
    check_memory(z, g)
    states.check(state, z, rule)
    mine = [("state of a parameter", engine.local(state[name])) for name in rule.kept if name in state]
    named = [("a parameter", z), *([] if g is None else [("a gradient", g)]), *mine]
    reasons = (f"{what} {why}" for what, tensor in named if (why := engine.has_no_address(tensor)) is not None)
    without_address = next(reasons, None)
    if shard.sharing is not None and rule.takes_sums and engine.resolve(backend, z.device) == "triton":
        _refuse_gaps(z)
    name, reason = engine.choose(backend, z, z if g is None else g, without_address)
    if reason is not None:
        tell(reason)
    return name, without_address is None


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


def _plan(kept: Mapping[Tensor, dict[str, Any]], chosen: Mapping[int, _Chosen], groups: int) -> Plan | None:
    """What the Triton engine steps; None where that is nothing."""
    if not chosen:
        return None
    from ..engine.triton.batch import Entry
    from ..engine.triton.plan import Plan

    entries = {}
    for i, (param, (z, g, sharing), group, rule, *_) in chosen.items():
        state = _laid_out_like(param, z, kept[param], rule)
        grad_dtype = z.dtype if g is None else g.dtype
        entries[i] = Entry(rule, z, grad_dtype, state, group, agr_suits(param), sharing)
    return Plan(entries, groups)


def _laid_out_like(param: Tensor, z: Tensor, state: dict[str, Any], rule: Rule) -> dict[str, Tensor]:
    """The state of what is stepped here. What was loaded may lie in another order; the kernels walk both alike."""
    for name in rule.state_names:
        tensor = engine.local(state[name])
        if tensor.stride() != z.stride():
            state[name] = engine.like(param, torch.empty_like(z, dtype=tensor.dtype).copy_(tensor))
        if rule.encodings[name].is_blocked:
            scales = engine.local(state[scale_of(name)])
            if not scales.is_contiguous():
                state[scale_of(name)] = engine.like(param, scales.contiguous(), scale_shape(param))
    return {name: engine.local(state[name]) for name in ("step", *rule.kept)}
