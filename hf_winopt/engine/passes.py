"""What is compiled: the passes of one step over one whole parameter, each composed of the rules and of sums.

A pass is given `z`, `g` and state widened to the type of arithmetic, and `home`, where the new `z` goes. It returns
what the pass after it needs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..rules import OFF, Coefficients, Rule, State, advance, apply, gradient, move, trust_ratio
from .norms import needs_sum, widest

Pass = Callable[..., list[Tensor]]


def whole_step(rule: Rule, c: Coefficients, home: Tensor, z: Tensor, g: Tensor, state: State) -> list[Tensor]:
    """Everything at once, where no number of the direction is needed."""
    new_z, new_state = apply(rule, _with_sum(rule, c, z, g), z, g, state)
    _store(state, new_state)
    home.copy_(new_z)
    return []


def to_ratio(
    rule: Rule, c: Coefficients, home: Tensor, z: Tensor, g: Tensor, state: State, kept: Tensor
) -> list[Tensor]:
    """LAMB's first pass: the moments advance and the direction goes to `kept`; returns the trust ratio."""
    moments, r = advance(rule, _with_sum(rule, c, z, g), z, g, state)
    w = z if rule.conservative == "z" else state["x"]
    _store(state, moments)
    kept.copy_(r)
    return [trust_ratio(_sum(w.square()).sqrt(), _sum(r.square()).sqrt()).to(z.dtype)]


def from_ratio(
    rule: Rule, c: Coefficients, home: Tensor, z: Tensor, g: Tensor, state: State, kept: Tensor, ratio: Tensor
) -> list[Tensor]:
    """LAMB's second pass: the parameter moves along the direction that was kept."""
    new_z, sequences = move(rule, {**c, "ratio": ratio}, z, kept, state)
    _store(state, sequences)
    home.copy_(new_z)
    return []


def _with_sum(rule: Rule, c: Coefficients, z: Tensor, g: Tensor) -> Coefficients:
    """The coefficients, with `sum|g|` where it is yet to be found; an "agr" of 0 among them turns AGR off."""
    if not needs_sum(rule, c):
        return c
    abs_sum = _sum(gradient(c, z, g).abs()).to(z.dtype)
    if isinstance(agr := c.get("agr"), Tensor):
        abs_sum = torch.where(agr == 0, OFF, abs_sum)
    return {**c, "abs_sum": abs_sum}


def _store(state: State, new: State) -> None:
    for name, value in new.items():
        state[name].copy_(value)


def _sum(terms: Tensor) -> Tensor:
    return terms.sum(dtype=widest(terms.device))
