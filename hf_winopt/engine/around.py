"""Win around another optimizer's step: a pass over all parameters before it, and one after it (`rules.around`).

What waits between the two lies where the distance itself does, if that is stored as it is. A distance in codes keeps
them until they are replaced, and what waits is a tensor of its own, for as long as the other's step takes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from ..rules import Coefficients, Rule, State, arrive, leave
from .norms import blocks_of
from .passes import after_base, before_base, waiting_places, waits_apart
from .programs import Kind, Request, in_loops
from .ready import programs
from .steppers import parts_of, table_of, take_home
from .work import Segment, Work, alone, compute_dtype, segments

_OnBlock = Callable[[Rule, Coefficients, Tensor, State, list[Tensor]], None]

WAITS = "_waits"
"""Behind the name of a distance: what waits for it, in a tensor of its own."""


def with_room(rule: Rule, z: Tensor, state: State, c: Mapping[str, float], engine: str) -> Work:
    """A parameter, or its shard, with its distances and room for what waits, for both passes of one step."""
    room = {
        name + WAITS: torch.empty_like(z, dtype=compute_dtype(z.dtype), memory_format=torch.preserve_format)
        for name in waits_apart(rule)
    }
    return Work(z, {**state, **room}, z, dict(c), engine=engine)


def before(rule: Rule, works: Sequence[Work]) -> None:
    """Every parameter becomes its `x`."""
    _pass(rule, works, before_base, _leave_block)


def after(rule: Rule, works: Sequence[Work]) -> None:
    """Every parameter, which the base has left at `x'`, becomes its new `z`; the distances are the new ones."""
    _pass(rule, works, after_base, _arrive_block)


def _pass(rule: Rule, works: Sequence[Work], one_pass: Callable[..., list[Tensor]], on_block: _OnBlock) -> None:
    compiled = [work for work in works if work.engine == "compile" and work.z.numel() > 1]
    others = [work for work in works if work.engine != "compile" or work.z.numel() == 1]
    for segment in segments(rule, others):
        for z, _, *states in blocks_of(segment):
            kept = dict(zip(rule.kept, states))
            on_block(rule, segment.c, z, kept, states[len(kept) :])
        segment.finish()
    for kind, mine in _by_kind(compiled):
        _compiled(Request(one_pass, rule, tuple(mine[0].c), kind), mine)
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
        if work.z.numel():
            kinds[work.z.dtype, work.z.dtype, work.z.device].append(work)
    yield from kinds.items()


def _compiled(request: Request, works: Sequence[Work]) -> None:
    (program,) = programs([request])
    rule, table = request.rule, table_of(works[0].c, request.kind)
    for work in works:
        views = work.views(rule.is_blocked)
        segment: Segment | None = None
        if views is None:
            segment = alone(work, rule.is_blocked)
            views = [segment.z, segment.g, *segment.state.values()]
        if in_loops(rule, request.kind):
            parts = parts_of(("z", "g", *work.state), views)
            for part in parts:
                program([table, *part])
            take_home(views, parts)
        else:
            program([table, *views])
        if segment is not None:
            segment.finish()
