"""The same rules compiled: one program for every size and every step, a parameter at a time.

A parameter's sums are taken just before it moves, so that what they read is mostly in the cache still. All coefficients
travel in one small tensor, and so neither another parameter nor another learning rate compiles anything again.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ..rules import OFF, Coefficients, Rule, is_known
from . import eager
from .passes import from_ratio, to_ratio, whole_step
from .programs import Kind, program
from .work import Work, alone, compute_dtype


def step(rule: Rule, works: list[Work]) -> None:
    """Step every parameter by `rule`; parameters and state are modified, gradients are not."""
    alike: defaultdict[tuple[int, Kind], list[Work]] = defaultdict(list)
    for work in works:
        if work.z.numel() > 1:
            alike[id(work.c), (work.z.dtype, work.g.dtype, work.z.device)].append(work)
    # all are compiled before any is stepped
    steppers = [_stepper(rule, kind, mine) for (_, kind), mine in alike.items()]
    for stepper, mine in zip(steppers, alike.values()):
        for work in mine:
            if views := work.views():
                stepper(views)
            else:
                segment = alone(work)
                stepper([segment.z, segment.g, *segment.state.values()])
                segment.finish()
    eager.step(rule, [work for work in works if work.z.numel() == 1])  # to the compiler another kind of size
    torch.autograd.graph.increment_version([work.z for work in works])  # autograd does not see what a program writes


def _stepper(rule: Rule, kind: Kind, works: list[Work]) -> Callable[[list[Tensor]], object]:
    """What steps each of these works, whose coefficients are the same, given its `z`, `g` and state, flat."""
    c = works[0].c
    if rule.transform == "agr" and is_known(c.get("abs_sum", 1.0), OFF):
        rule, c = replace(rule, transform="none"), {name: value for name, value in c.items() if name != "abs_sum"}
    names, table = tuple(c), _table(c, kind)
    if not rule.trust_ratio:
        whole = program(whole_step, rule, names, kind)
        return lambda tensors: whole([table, *tensors])
    first, second = (program(one_pass, rule, names, kind) for one_pass in (to_ratio, from_ratio))
    room = _room_for_direction(kind, max(work.z.numel() for work in works))

    def two_passes(tensors: list[Tensor]) -> None:
        kept = room[: tensors[0].numel()]
        (ratio,) = first([table, *tensors, kept])
        second([table, *tensors, kept, ratio])

    return two_passes


def _table(c: Coefficients, kind: Kind) -> Tensor:
    """The coefficients, in one tensor beside the parameters."""
    table = torch.tensor([0.0 if isinstance(value, Tensor) else value for value in c.values()], dtype=torch.float64)
    table = table.to(kind[2], compute_dtype(kind[0]))
    for place, value in enumerate(c.values()):
        if isinstance(value, Tensor):  # on an accelerator, where reading it would wait
            table[place] = value
    return table


_room: dict[tuple[torch.dtype, torch.device, int], Tensor] = {}


def _room_for_direction(kind: Kind, elements: int) -> Tensor:
    """Room for the direction of one parameter, each thread its own; as much as the largest has asked for.

    It stays from step to step: to be given fresh memory takes longer than to step it.
    """
    key = (compute_dtype(kind[0]), kind[2], threading.get_ident())
    if key not in _room or _room[key].numel() < elements:
        _room[key] = torch.zeros(elements, dtype=key[0], device=key[1])
    return _room[key]
