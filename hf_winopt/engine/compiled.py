"""The same rules compiled: one program for every size and every step, a parameter at a time.

A parameter's sums are taken just before it moves, so that what they read is mostly in the cache still. All coefficients
travel in one small tensor, and so neither another parameter nor another learning rate compiles anything again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch

from ..rules import OFF, Coefficients, Rule, is_known
from . import eager
from .layout import blocks_per_row
from .programs import Kind, in_loops
from .ready import programs
from .steppers import Group, stepper
from .work import Work, alone

FEW = 1 / 16
"""The share of all elements that AGR may leave alone (biases, norms) and still have them in its own program."""


def step(rule: Rule, works: list[Work]) -> None:
    """Step every parameter by `rule`; parameters and state are modified, gradients are not."""
    groups = list(_groups(rule, works))
    ready = iter(programs([request for group in groups for request in group.requests]))  # before any is stepped
    for group in groups:
        step_one = stepper(group, [next(ready) for _ in group.requests])
        for work in group.works:
            if views := work.views(rule.is_blocked):
                step_one(views)
            else:
                segment = alone(work, rule.is_blocked)
                step_one([segment.z, segment.g, *segment.state.values()])
                segment.finish()
    eager.step(rule, [work for work in works if is_single(rule, work)])
    torch.autograd.graph.increment_version([work.z for work in works])  # autograd does not see what a program writes


def is_single(rule: Rule, work: Work) -> bool:
    """Whether a parameter is of one element, or one block: to the compiler another kind of size."""
    size = work.z.numel()
    if rule.is_blocked and size:
        size = work.z.shape[0] * blocks_per_row(work.z.shape)
    return size == 1


def _groups(rule: Rule, works: list[Work]) -> Iterator[Group]:
    alike: defaultdict[Kind, defaultdict[int, list[Work]]] = defaultdict(lambda: defaultdict(list))
    for work in works:
        if work.z.numel() and not is_single(rule, work):
            alike[work.z.dtype, work.g.dtype, work.z.device][id(work.c)].append(work)
    for kind, of_kind in alike.items():
        if in_loops(rule, kind):  # to which AGR that is off is a sum of 0
            yield from (Group(rule, mine[0].c, kind, mine) for mine in of_kind.values())
            continue
        few_off = _few_are_off(of_kind.values())
        for mine in of_kind.values():
            yield Group(*_switched(rule, mine[0].c, few_off), kind, mine)


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
