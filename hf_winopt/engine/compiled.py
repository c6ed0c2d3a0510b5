"""The same rules under `torch.compile`: one compiled function for every size and every step.

Sizes are dynamic and all coefficients travel in small tensors, so that neither another parameter nor another learning
rate compiles anything again (another number of threads, or autocast around the step, does). Segments go `BATCH` at a
time, since each call costs as much as stepping tens of thousands of elements.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ..rules import Coefficients, Rule
from . import eager
from .norms import needs_sum
from .passes import Pass, abs_sum, from_ratio, to_ratio, whole_step
from .work import Segment, Work, compute_dtype, segments

TINY = 4096
"""Segments of at most so many elements are stepped by the eager engine: torch compiles their sums in another way."""

BATCH = 8
"""Segments of one call. A call always has as many, of which some may be padding: another number would compile anew."""

PADDING = (4099, 4111, 4127, 4129, 4133, 4139, 4153, 4157)
"""Elements of segments that fill up a batch."""

EXAMPLES = (262147, 262151, 262153, 262187, 262193, 262217, 262231, 262237)
"""Elements at the first call: what is equal there would be taken to be equal for ever, and from sizes much smaller
torch would conclude that many threads are not worth their while."""

Kind = tuple[torch.dtype, torch.dtype, torch.device]
Arguments = tuple[list[Tensor], list[Tensor], list[tuple[Tensor, ...]], Tensor]


def step(rule: Rule, works: list[Work]) -> None:
    """Step every parameter by `rule`; parameters and state are modified, gradients are not."""
    for batch in _batches(rule, works):
        _step_batch(rule, batch)
        for segment in batch:
            segment.finish()


def _batches(rule: Rule, works: list[Work]) -> Iterator[list[Segment]]:
    """Up to `BATCH` segments of one kind and one set of names; what eager steps better is stepped on the way."""
    waiting: dict[tuple[Any, ...], list[Segment]] = {}
    for segment in segments(works):
        # Small parameters that lie end to end, each with a number of its own, have one coefficient an element
        spread = len(segment.sizes) > 1 and (rule.trust_ratio or needs_sum(rule, segment.c))
        if spread or segment.z.numel() <= TINY:
            eager.step_segment(rule, segment)
            continue
        key = (tuple(segment.c), _kind(segment))
        batch = waiting.setdefault(key, [])
        batch.append(segment)
        if len(batch) == BATCH:
            yield waiting.pop(key)
    yield from waiting.values()


def _step_batch(rule: Rule, batch: list[Segment]) -> None:
    """Find the numbers that belong to whole parameters, then step."""
    c, kind = batch[0].c, _kind(batch[0])
    padded = batch + [_ones(rule, c, kind, size) for size in PADDING[len(batch) : BATCH]]
    names = tuple(name for name in c if name != "abs_sum")
    arguments = _arguments(padded, names)
    own: dict[str, Tensor] = {}

    def run(one_pass: Pass, *kept: tuple[Tensor, ...]) -> Any:
        return _compiled(one_pass, rule, names, tuple(own), kind)(*arguments, tuple(own.values()), *kept)

    if needs_sum(rule, c):
        own["abs_sum"] = torch.stack(run(abs_sum))
    elif rule.transform != "none":
        own["abs_sum"] = _table(padded, ("abs_sum",))[:, 0]
    if rule.trust_ratio:
        kept = _kept(padded)
        own["ratio"] = torch.stack(run(to_ratio, kept))
        run(from_ratio, kept)
    else:
        run(whole_step)


# what a call is given ----------------------------------------------------------------------------------------------


def _kind(segment: Segment) -> Kind:
    return segment.z.dtype, segment.g.dtype, segment.z.device


def _ones(rule: Rule, c: Coefficients, kind: Kind, size: int) -> Segment:
    z_dtype, g_dtype, device = kind
    state = {name: torch.ones(size, dtype=compute_dtype(z_dtype), device=device) for name in rule.state_names}
    z = torch.ones(size, dtype=z_dtype, device=device)
    return Segment(z, torch.ones(size, dtype=g_dtype, device=device), state, c, [size])


def _arguments(batch: list[Segment], names: tuple[str, ...]) -> Arguments:
    """`z`, `g` and state of each, and the table of coefficients."""
    zs, gs, states = [s.z for s in batch], [s.g for s in batch], [tuple(s.state.values()) for s in batch]
    return zs, gs, states, _table(batch, names)


def _table(batch: list[Segment], names: tuple[str, ...]) -> Tensor:
    """The coefficients `names`, a row for each segment, in one tensor beside the parameters."""
    rows = {id(s.c): [s.c[name] for name in names] for s in batch}
    known = {key: [0.0 if isinstance(value, Tensor) else value for value in row] for key, row in rows.items()}
    z = batch[0].z
    table = torch.tensor([known[id(s.c)] for s in batch], dtype=torch.float64)
    table = table.to(z.device, compute_dtype(z.dtype))
    for i, segment in enumerate(batch):
        for j, value in enumerate(rows[id(segment.c)]):
            if isinstance(value, Tensor):
                table[i, j] = value
    return table


_room: dict[tuple[torch.dtype, torch.device, int], Tensor] = {}


def _kept(batch: list[Segment]) -> tuple[Tensor, ...]:
    """Room for the directions of a batch, each thread its own; as much as a batch of the largest parameters.

    It stays from step to step: to be given fresh memory takes longer than to step it.
    """
    z, sizes = batch[0].z, [s.z.numel() for s in batch]
    key = (compute_dtype(z.dtype), z.device, threading.get_ident())
    if key not in _room or _room[key].numel() < sum(sizes):
        _room[key] = torch.zeros(sum(sizes), dtype=key[0], device=z.device)
    return _room[key][: sum(sizes)].split(sizes)


# compilation -------------------------------------------------------------------------------------------------------


@functools.cache
def _ask_ahead() -> None:
    """Find out beside the tracing what torch asks before it loads code for the CPU: a second of waiting.

    The answer stays in a cache of torch's own, where it looks for it. Should that move, only the time is lost.
    """

    def ask() -> None:
        with contextlib.suppress(Exception):
            from torch._inductor import cpu_vec_isa

            cpu_vec_isa.valid_vec_isa_list()  # which vector instructions work here, tried in processes of their own

    threading.Thread(target=ask, daemon=True).start()


@functools.cache
def _compiled(
    one_pass: Pass, rule: Rule, names: tuple[str, ...], own_names: tuple[str, ...], kind: Kind
) -> Callable[..., tuple[Any, ...]]:
    """`one_pass` over a batch, compiled for this rule and kind of tensors.

    The table's columns are called `names`, and `own_names` the numbers that belong to whole parameters.
    """

    def run(
        zs: list[Tensor],
        gs: list[Tensor],
        states: list[tuple[Tensor, ...]],
        table: Tensor,
        own: tuple[Tensor, ...],
        *kept: tuple[Tensor, ...],
    ) -> tuple[Any, ...]:
        results = []
        for i, (z, g, state, row) in enumerate(zip(zs, gs, states, table.unbind())):
            c: Coefficients = dict(zip(names, row.unbind()))
            c.update(zip(own_names, [numbers[i] for numbers in own]))
            dtype = compute_dtype(z.dtype)
            named = dict(zip(rule.state_names, state))
            results.append(one_pass(rule, c, z, z.to(dtype), g.to(dtype), named, *[room[i] for room in kept]))
        return tuple(results)

    if kind[2].type == "cpu":
        _ask_ahead()
    run.__code__ = run.__code__.replace(co_name=f"run_{one_pass.__name__}")  # torch counts compilations per code object
    # Otherwise torch reads and computes the moments twice, once to store them and once for the norm of the direction
    options: dict[str, Any] | None = {"realize_opcount_threshold": 0} if one_pass is to_ratio else None
    compiled = torch.compile(run, dynamic=True, fullgraph=True, options=options)
    examples = [_ones(rule, dict.fromkeys(names, 1.0), kind, size) for size in EXAMPLES[:BATCH]]
    numbers = torch.ones(BATCH, dtype=compute_dtype(kind[0]), device=kind[2])
    kept = (_kept(examples),) if one_pass in (to_ratio, from_ratio) else ()
    compiled(*_arguments(examples, names), (numbers,) * len(own_names), *kept)
    return compiled
