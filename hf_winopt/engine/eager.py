"""The rules as they stand, over blocks that stay in the cache, in place."""

from __future__ import annotations

import torch

from ..rules import Coefficients, Rule, State, advance, apply, direction_again, move, trust_ratio, w_of
from .norms import abs_sums, blocks_of, by_parameter, needs_sum, spread, total
from .work import Segment, Work, compute_dtype, segments


def step(rule: Rule, works: list[Work]) -> None:
    """Step every parameter by `rule`; parameters and state are modified, gradients are not."""
    for segment in segments(rule, works):
        step_segment(rule, segment)


def step_segment(rule: Rule, segment: Segment) -> None:
    """Step one segment, and write back what of it is a copy."""
    if needs_sum(rule, segment.c):
        segment.c = {**segment.c, "abs_sum": spread(abs_sums(segment), segment)}
    if rule.trust_ratio:
        w, r = advance_for_norms(rule, segment).sqrt().unbind(1)
        segment.c = {**segment.c, "ratio": spread(trust_ratio(w, r), segment)}
    finish_segment(rule, segment)


def finish_segment(rule: Rule, segment: Segment) -> None:
    """What is left to do once the sums over whole parameters are among the coefficients."""
    for z, g, *states in blocks_of(segment):
        state = dict(zip(segment.state, states))
        (_move_block if rule.trust_ratio else _step_block)(rule, segment.c, z, g, state)
    segment.finish()


def _step_block(rule: Rule, c: Coefficients, z: torch.Tensor, g: torch.Tensor, state: State) -> None:
    dtype = compute_dtype(z.dtype)
    wide = z.to(dtype)
    apply(rule, c, wide, g.to(dtype), state, {"z": wide, **state}, z.dtype)
    if wide is not z:
        z.copy_(wide)


def advance_for_norms(rule: Rule, segment: Segment) -> torch.Tensor:
    """LAMB's first pass: the moments advance; for each parameter the sums of squares of `w` and of `r`, `(n, 2)`."""
    dtype = compute_dtype(segment.z.dtype)
    w_parts, r_parts = [], []
    for z, g, *states in blocks_of(segment):
        state = dict(zip(segment.state, states))
        wide = z.to(dtype)
        _, r = advance(rule, segment.c, wide, g.to(dtype), state, state)
        w_parts.append(by_parameter(w_of(rule, wide, state).square(), segment))
        r_parts.append(by_parameter(r.square(), segment))
    return torch.stack((total(w_parts), total(r_parts)), dim=1)


def _move_block(rule: Rule, c: Coefficients, z: torch.Tensor, g: torch.Tensor, state: State) -> None:
    dtype = compute_dtype(z.dtype)
    wide = z.to(dtype)
    r = direction_again(rule, c, wide, g.to(dtype), state)
    move(rule, c, wide, r, state, {"z": wide, **state}, z.dtype)
    if wide is not z:
        z.copy_(wide)
