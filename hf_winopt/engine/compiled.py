"""The same rules compiled: one program for every size and every step, a parameter at a time.

A parameter's sums are taken just before it moves, so that what they read is mostly in the cache still. All coefficients
travel in one small tensor, and so neither another parameter nor another learning rate compiles anything again.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..rules import OFF, Coefficients, Rule, is_known
from . import eager
from .passes import from_ratio, to_ratio, whole_step
from .programs import Kind, Program, Request
from .ready import programs
from .work import Work, alone, compute_dtype

FEW = 1 / 16
"""The share of all elements that AGR may leave alone (biases, norms) and still have them in its own program."""


def step(rule: Rule, works: list[Work]) -> None:
    """Step every parameter by `rule`; parameters and state are modified, gradients are not."""
    groups = list(_groups(rule, works))
    ready = iter(programs([request for group in groups for request in group.requests]))  # before any is stepped
    for group in groups:
        stepper = _stepper(group, [next(ready) for _ in group.requests])
        for work in group.works:
            if views := work.views():
                stepper(views)
            else:
                segment = alone(work)
                stepper([segment.z, segment.g, *segment.state.values()])
                segment.finish()
    eager.step(rule, [work for work in works if work.z.numel() == 1])  # to the compiler another kind of size
    torch.autograd.graph.increment_version([work.z for work in works])  # autograd does not see what a program writes


class _Group(NamedTuple):
    """Those of one kind whose coefficients are the same."""

    rule: Rule
    c: Coefficients
    kind: Kind
    works: list[Work]

    @property
    def requests(self) -> list[Request]:
        passes = (to_ratio, from_ratio) if self.rule.trust_ratio else (whole_step,)
        return [Request(one_pass, self.rule, tuple(self.c), self.kind) for one_pass in passes]


def _groups(rule: Rule, works: list[Work]) -> Iterator[_Group]:
    alike: defaultdict[Kind, defaultdict[int, list[Work]]] = defaultdict(lambda: defaultdict(list))
    for work in works:
        if work.z.numel() > 1:
            alike[work.z.dtype, work.g.dtype, work.z.device][id(work.c)].append(work)
    for kind, of_kind in alike.items():
        few_off = _few_are_off(of_kind.values())
        for mine in of_kind.values():
            yield _Group(*_switched(rule, mine[0].c, few_off), kind, mine)


def _few_are_off(groups: Iterable[list[Work]]) -> bool:
    """Whether of all elements those without AGR are so few that their sum costs less than a program of their own."""
    sizes = [(_is_off(group[0].c), sum(work.z.numel() for work in group)) for group in groups]
    return sum(size for off, size in sizes if off) <= FEW * sum(size for _, size in sizes)


def _switched(rule: Rule, c: Coefficients, few_off: bool) -> tuple[Rule, Coefficients]:
    """AGR on or off: by a coefficient where few are off, else by another rule."""
    if rule.transform != "agr" or ("abs_sum" in c and not _is_off(c)):
        return rule, c
    others = {name: value for name, value in c.items() if name != "abs_sum"}
    if _is_off(c) and not few_off:
        return replace(rule, transform="none"), others
    return rule, {**others, "agr": 0.0 if _is_off(c) else 1.0}


def _is_off(c: Coefficients) -> bool:
    return is_known(c.get("abs_sum", 1.0), OFF)


def _stepper(group: _Group, its: list[Program]) -> Callable[[list[Tensor]], object]:
    """What steps each of a group, given its `z`, `g` and state, flat."""
    table = _table(group.c, group.kind)
    if not group.rule.trust_ratio:
        (whole,) = its
        return lambda tensors: whole([table, *tensors])
    first, second = its
    room = _room_for_direction(group.kind, max(work.z.numel() for work in group.works))

    def two_passes(tensors: list[Tensor]) -> None:
        kept = room[: tensors[0].numel()]
        (ratio,) = first([table, *tensors, kept])
        second([table, *tensors, kept, ratio])

    return two_passes


def _table(c: Coefficients, kind: Kind) -> Tensor:
    """The coefficients, in one tensor beside the parameters."""
    numbers = [0.0 if isinstance(value, Tensor) else value for value in c.values()]
    table = (
        torch.tensor(numbers, dtype=torch.float64, device="cpu")
        .to(compute_dtype(kind[0]))
        .to(kind[2], non_blocking=True)
    )
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
        with torch.inference_mode(False):
            _room[key] = torch.zeros(elements, dtype=key[0], device=key[1])
    return _room[key]
