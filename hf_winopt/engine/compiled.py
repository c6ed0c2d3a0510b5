"""The same rules under `torch.compile`: one pass over memory, one compiled function for every size and every step.

Sizes are dynamic and all coefficients travel in one small tensor, so that neither another parameter nor another
learning rate compiles anything again (another number of threads, or autocast around the step, does). Segments go
`BATCH` at a time, since each call costs as much as stepping tens of thousands of elements.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ..rules import Coefficients, Rule, State, advance, apply, direction_again, move, trust_ratio
from . import eager
from .norms import with_sums
from .work import Segment, Work, compute_dtype, segments

TINY = 4096
"""Segments of at most so many elements are stepped by the eager engine: torch compiles their sums in another way."""

BATCH = 8
"""Segments of one call. A call always has as many, of which some may be padding: another number would compile anew."""

UNRELATED_SIZES = (4099, 4111, 4127, 4129, 4133, 4139, 4153, 4157)

Pass = Callable[..., Any]
Kind = tuple[torch.dtype, torch.dtype, torch.device]


def step(rule: Rule, works: list[Work]) -> None:
    """Step every parameter by `rule`; parameters and state are modified, gradients are not."""
    for batch in _batches(rule, works):
        first = batch[0]
        kind = (first.z.dtype, first.g.dtype, first.z.device)
        batch += [_padding(rule, first.c, kind, size) for size in UNRELATED_SIZES[len(batch) : BATCH]]
        args = _arguments(batch)
        names = tuple(first.c)
        if rule.trust_ratio:
            ratios = _compiled(_first_pass, rule, names, kind)(*args)
            _compiled(_second_pass, rule, names, kind)(*args, ratios)
        else:
            _compiled(_whole_step, rule, names, kind)(*args)
        for segment in batch:
            segment.finish()


def _batches(rule: Rule, works: list[Work]) -> Iterator[list[Segment]]:
    """Up to `BATCH` segments of one kind and one set of names; what is tiny is stepped on the way."""
    waiting: dict[tuple[Any, ...], list[Segment]] = {}
    for segment in segments(rule, with_sums(rule, works)):
        if segment.z.numel() <= TINY:
            eager.step(rule, [Work(segment.z, segment.g, segment.state, segment.c)])
            segment.finish()
            continue
        key = (tuple(segment.c), segment.z.dtype, segment.g.dtype, segment.z.device)
        batch = waiting.setdefault(key, [])
        batch.append(segment)
        if len(batch) == BATCH:
            yield waiting.pop(key)
    yield from waiting.values()


def _padding(rule: Rule, c: Coefficients, kind: Kind, size: int) -> Segment:
    z_dtype, g_dtype, device = kind
    state = {name: torch.ones(size, dtype=compute_dtype(z_dtype), device=device) for name in rule.state_names}
    z = torch.ones(size, dtype=z_dtype, device=device)
    return Segment(z, torch.ones(size, dtype=g_dtype, device=device), state, c)


def _arguments(batch: list[Segment]) -> tuple[list[Tensor], list[Tensor], list[tuple[Tensor, ...]], Tensor]:
    """`z`, `g` and state of each, and one row of coefficients for each in one tensor."""
    rows: dict[int, Tensor] = {}
    for segment in batch:
        if id(segment.c) not in rows:
            rows[id(segment.c)] = _row(segment)
    table = torch.stack([rows[id(segment.c)] for segment in batch])
    return [s.z for s in batch], [s.g for s in batch], [tuple(s.state.values()) for s in batch], table


def _row(segment: Segment) -> Tensor:
    """The segment's coefficients as one tensor beside its parameter."""
    values = list(segment.c.values())
    known = [0.0 if isinstance(value, Tensor) else value for value in values]
    row = torch.tensor(known, dtype=torch.float64).to(segment.z.device, compute_dtype(segment.z.dtype))
    for i, value in enumerate(values):
        if isinstance(value, Tensor):
            row[i] = value
    return row


@functools.cache
def _compiled(one_pass: Pass, rule: Rule, names: tuple[str, ...], kind: Kind) -> Pass:
    """`one_pass` over a batch, compiled for this rule and kind of tensors; the table's columns are called `names`."""

    def run(
        zs: list[Tensor],
        gs: list[Tensor],
        states: list[tuple[Tensor, ...]],
        table: Tensor,
        ratios: tuple[Tensor | None, ...] = (None,) * BATCH,
    ) -> tuple[Any, ...]:
        results = []
        for z, g, state, row, ratio in zip(zs, gs, states, table.unbind(), ratios):
            c: Coefficients = dict(zip(names, row.unbind()))
            if ratio is not None:
                c["ratio"] = ratio
            dtype = compute_dtype(z.dtype)
            results.append(one_pass(rule, c, z, z.to(dtype), g.to(dtype), dict(zip(rule.state_names, state))))
        return tuple(results)

    run.__code__ = run.__code__.replace(co_name=f"run_{one_pass.__name__}")  # torch counts compilations per code object
    compiled = torch.compile(run, dynamic=True, fullgraph=True)
    # Sizes that are equal at the first call would be taken to be equal for ever. So that call is made here.
    padding = [_padding(rule, dict.fromkeys(names, 1.0), kind, size) for size in UNRELATED_SIZES[:BATCH]]
    ratios = torch.ones(BATCH, dtype=compute_dtype(kind[0]), device=kind[2]).unbind()
    compiled(*_arguments(padding), *((ratios,) if one_pass is _second_pass else ()))
    return compiled


def _whole_step(rule: Rule, c: Coefficients, home: Tensor, z: Tensor, g: Tensor, state: State) -> None:
    new_z, new_state = apply(rule, c, z, g, state)
    _store(state, new_state)
    home.copy_(new_z)


def _first_pass(rule: Rule, c: Coefficients, home: Tensor, z: Tensor, g: Tensor, state: State) -> Tensor:
    """The moments advance; the trust ratio."""
    moments, r = advance(rule, c, z, g, state)
    w = z if rule.conservative == "z" else state["x"]
    _store(state, moments)
    return trust_ratio(w.square().sum().sqrt(), r.square().sum().sqrt())


def _second_pass(rule: Rule, c: Coefficients, home: Tensor, z: Tensor, g: Tensor, state: State) -> None:
    r = direction_again(rule, c, z, g, state)
    new_z, sequences = move(rule, c, z, r, state)
    _store(state, sequences)
    home.copy_(new_z)


def _store(state: State, new: State) -> None:
    for name, value in new.items():
        state[name].copy_(value)
