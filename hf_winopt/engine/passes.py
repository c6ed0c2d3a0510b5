"""What is compiled: the passes of one step over one segment, each composed of the rules and of sums.

A pass is given `z`, `g` and state widened to the type of arithmetic, and `home`, where the new `z` goes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..rules import Coefficients, Rule, State, advance, apply, gradient, move, trust_ratio
from .norms import widest

Pass = Callable[..., Any]


def whole_step(rule: Rule, c: Coefficients, home: Tensor, z: Tensor, g: Tensor, state: State) -> None:
    """Everything at once, where no number of the direction is needed."""
    new_z, new_state = apply(rule, c, z, g, state)
    _store(state, new_state)
    home.copy_(new_z)


def abs_sum(rule: Rule, c: Coefficients, home: Tensor, z: Tensor, g: Tensor, state: State) -> Tensor:
    """`sum|g|`, before the step."""
    return _sum(lambda z, g: gradient(c, z, g).abs(), z, g).to(z.dtype)


def to_ratio(rule: Rule, c: Coefficients, home: Tensor, z: Tensor, g: Tensor, state: State, kept: Tensor) -> Tensor:
    """LAMB's first pass: the moments advance and the direction goes to `kept`; the trust ratio."""
    moments, r = advance(rule, c, z, g, state)
    w = z if rule.conservative == "z" else state["x"]
    _store(state, moments)
    kept.copy_(r)
    # `z` is mostly read for the direction already, and its sum then costs nothing; `x` is read for its sum alone
    w_squares = w.square().sum(dtype=widest(w.device)) if w is z else _sum(torch.square, w)
    r_squares = r.square().sum(dtype=widest(r.device))
    return trust_ratio(w_squares.sqrt(), r_squares.sqrt()).to(z.dtype)


def from_ratio(rule: Rule, c: Coefficients, home: Tensor, z: Tensor, g: Tensor, state: State, kept: Tensor) -> None:
    """LAMB's second pass: the parameter moves along the direction that was kept."""
    new_z, sequences = move(rule, c, z, kept, state)
    _store(state, sequences)
    home.copy_(new_z)


def _store(state: State, new: State) -> None:
    for name, value in new.items():
        state[name].copy_(value)


def _sum(term: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """The sum of `term` in the widest type, over four stretches in step: one stream alone leaves the memory idle."""
    wide = widest(tensors[0].device)
    stretch = (tensors[0].numel() - 2) // 4  # what is left is never 0 or 1 element, for which torch compiles anew
    a, b, c, d = (term(*(t[i * stretch : (i + 1) * stretch] for t in tensors)) for i in range(4))
    rest = term(*(t[4 * stretch :] for t in tensors))
    return (a + b + c + d).sum(dtype=wide) + rest.sum(dtype=wide)
