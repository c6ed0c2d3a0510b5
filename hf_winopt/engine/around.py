"""Win around another optimizer's step: a pass over all parameters before it, and one after it (`rules.around`).

What waits between the two lies where the distance itself does, if that is stored as it is. A distance in codes keeps
them until they are replaced, and what waits is a tensor of its own, for as long as the other's step takes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ..rules import Coefficients, Rule, State, arrive, leave
from .compiled import is_single
from .norms import blocks_of
from .passes import after_base, before_base, waiting_places, waits_apart
from .programs import Kind, Program, Request, in_loops
from .ready import programs
from .steppers import Call, Group, parts_of, take_home
from .work import Work, alone, compute_dtype, segments

_OnBlock = Callable[[Rule, Coefficients, Tensor, State, list[Tensor]], None]

WAITS = "_waits"
"""Behind the name of a distance: what waits for it, in a tensor of its own."""


def with_room(rule: Rule, z: Tensor, state: State, c: Coefficients, engine: str) -> Work:
    """A parameter, or its shard, with its distances and room for what waits, for both passes of one step."""
    room = {
        name + WAITS: torch.empty_like(z, dtype=compute_dtype(z.dtype), memory_format=torch.preserve_format)
        for name in waits_apart(rule)
    }
    return Work(z, {**state, **room}, z, c, engine=engine)


def before(rule: Rule, works: Sequence[Work]) -> None:
    """Every parameter becomes its `x`."""
    _pass(rule, works, before_base, _leave_block)


def after(rule: Rule, works: Sequence[Work]) -> None:
    """Every parameter, which the base has left at `x'`, becomes its new `z`; the distances are the new ones."""
    _pass(rule, works, after_base, _arrive_block)


def _pass(rule: Rule, works: Sequence[Work], one_pass: Callable[..., list[Tensor]], on_block: _OnBlock) -> None:
    by_engine: defaultdict[str, list[Work]] = defaultdict(list)
    for work in works:
        if work.z.numel():
            by_engine["eager" if work.engine == "compile" and is_single(rule, work) else work.engine].append(work)
    compiled = [
        (Request(one_pass, rule, tuple(mine[0].c), kind), mine) for kind, mine in _by_kind(by_engine["compile"])
    ]
    its = programs([request for request, _ in compiled])  # before any parameter is changed
    for segment in segments(rule, by_engine["eager"]):
        for z, _, *states in blocks_of(segment):
            kept = dict(zip(rule.kept, states))
            on_block(rule, segment.c, z, kept, states[len(kept) :])
        segment.finish()
    for (request, mine), program in zip(compiled, its):
        _compiled(request, program, mine)
    if by_engine["triton"]:
        from .triton.around import step  # imports Triton

        step(rule, by_engine["triton"], after=one_pass is after_base)
    torch.autograd.graph.increment_version([work.z for work in works])


def _leave_block(rule: Rule, c: Coefficients, z: Tensor, state: State, waits: list[Tensor]) -> None:
    x, waiting = leave(rule, c, z.to(compute_dtype(z.dtype)), state)
    for name, place in waiting_places(rule, state, waits).items():
        place.copy_(waiting[name])
    z.copy_(x)


def _arrive_block(rule: Rule, c: Coefficients, z: Tensor, state: State, waits: list[Tensor]) -> None:
    new, _ = arrive(rule, c, z.to(compute_dtype(z.dtype)), waiting_places(rule, state, waits), state, z.dtype)
    z.copy_(new)


# compiled ------------------------------------------------------------------------------------------------------------


def _by_kind(works: Sequence[Work]) -> Iterator[tuple[Kind, list[Work]]]:
    kinds: defaultdict[Kind, list[Work]] = defaultdict(list)
    for work in works:
        kinds[work.z.dtype, work.z.dtype, work.z.device].append(work)
    yield from kinds.items()


def _compiled(request: Request, program: Program, works: list[Work]) -> None:
    rule, names = request.rule, ("z", "g", *works[0].state)
    call = Call(request, program, Group(rule, works[0].c, request.kind, works))
    tensors_of_rule = 2 + len(rule.kept)
    for work in works:
        views, segment = work.views(rule.is_blocked), None
        if views is None:
            segment = alone(work, rule.is_blocked)
            views = [segment.z, segment.g, *segment.state.values()]
        parts = parts_of(names, views) if in_loops(rule, request.kind) else [views]
        for part in parts:
            call(part[:tensors_of_rule], *part[tensors_of_rule:])
        if in_loops(rule, request.kind):
            take_home(views, parts)
        if segment is not None:
            segment.finish()
