"""The same rules under `torch.compile`: one pass over memory, one compiled function a rule for every size and step.

Sizes are dynamic and all coefficients travel in one small tensor, so that neither another parameter nor another
learning rate compiles anything again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from ..rules import Coefficients, Rule, State, advance, apply, direction_again, move, trust_ratio
from . import eager
from .norms import with_sums
from .work import Segment, Work, compute_dtype, segments

TINY = 1024
"""Below so many elements a compiled call costs more than the eager one (and sizes 0 and 1 would compile anew)."""

Pass = Callable[..., Tensor | None]


def step(rule: Rule, works: list[Work]) -> None:
    """Step every parameter by `rule`; parameters and state are modified, gradients are not."""
    tables: dict[tuple[int, torch.device, torch.dtype], Tensor] = {}
    for segment in segments(rule, with_sums(rule, works)):
        if segment.z.numel() < TINY:
            eager.step(rule, [Work(segment.z, segment.g, segment.state, segment.c)])
        else:
            key = (id(segment.c), segment.z.device, compute_dtype(segment.z.dtype))
            if key not in tables:
                tables[key] = _table(segment)
            _run(rule, segment, tables[key])
        segment.finish()


def _run(rule: Rule, segment: Segment, table: Tensor) -> None:
    names = tuple(segment.c)
    tensors = (segment.z, segment.g, tuple(segment.state.values()), table)
    if rule.trust_ratio:
        ratio = _compiled(_first_pass, rule, names)(*tensors)
        _compiled(_second_pass, rule, names)(*tensors, ratio)
    else:
        _compiled(_whole_step, rule, names)(*tensors)


def _table(segment: Segment) -> Tensor:
    """The segment's coefficients as one tensor beside its parameter, made once for all segments that share them."""
    values = list(segment.c.values())
    known = [0.0 if isinstance(value, Tensor) else value for value in values]
    table = torch.tensor(known, dtype=torch.float64).to(segment.z.device, compute_dtype(segment.z.dtype))
    for i, value in enumerate(values):
        if isinstance(value, Tensor):
            table[i] = value
    return table


@functools.cache
def _compiled(one_pass: Pass, rule: Rule, names: tuple[str, ...]) -> Pass:
    """`one_pass` for this rule, compiled once for every size; the table's entries are called `names`."""

    def run(z: Tensor, g: Tensor, states: tuple[Tensor, ...], table: Tensor, *ratio: Tensor) -> Tensor | None:
        c: Coefficients = dict(zip(names, table.unbind()))
        dtype = compute_dtype(z.dtype)
        return one_pass(rule, c, z, z.to(dtype), g.to(dtype), dict(zip(rule.state_names, states)), *ratio)

    return torch.compile(run, dynamic=True, fullgraph=True)


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


def _second_pass(rule: Rule, c: Coefficients, home: Tensor, z: Tensor, g: Tensor, state: State, ratio: Tensor) -> None:
    r = direction_again(rule, c, z, g, state)
    new_z, sequences = move(rule, {**c, "ratio": ratio}, z, r, state)
    _store(state, sequences)
    home.copy_(new_z)


def _store(state: State, new: State) -> None:
    for name, value in new.items():
        state[name].copy_(value)
