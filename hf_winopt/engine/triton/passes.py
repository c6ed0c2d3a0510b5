"""A step over one block of one parameter, composed of the twins of the rules: read, update, write.

`row` is the parameter's row of addresses, `c` its coefficients; `r` is the dither; `at`, `mask`, `lines` and `some` are
the places of the block (see `stored`), `KEPT` says how state is kept. Arithmetic is of type `TYPE`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from . import columns as col
from .arithmetic import number
from .encodings import FLOAT32, REMAINDER
from .moments import (
    adam_advance,
    adam_direction,
    adan_advance,
    adan_direction,
    momentum_advance,
    nadam_direction,
    nesterov_direction,
)
from .movement import decoupled_move, proximal_move, win2_move, win_move
from .stored import read, write
from .transforms import transformed


@triton.jit
def gradient(c, z, g, DECAY: tl.constexpr):
    """Section 0: scale, sign, clipping and l2 decay; the gradient that `sum|g|` is taken of."""
    g = g * number(c, col.GRAD)
    if DECAY == "l2":
        g = g + number(c, col.LAM) * z
    return g


@triton.jit
def direction(
    c, row, z, g, abs_sum, r, at, mask, lines, some, PASS: tl.constexpr,
    TRANSFORM: tl.constexpr, MOMENTS: tl.constexpr, DECAY: tl.constexpr,
    KEPT: tl.constexpr, TYPE: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    """Sections 0 to 2 but for the trust ratio: the moments advance in memory; the direction.

    In the second of two passes they have advanced already: recomputing the direction is cheaper than storing it (LAMB).
    So that it is the same, the first takes it from what the second will read; one pass, from what is not rounded yet.
    """
    h, s = transformed(TRANSFORM, gradient(c, z, g, DECAY), abs_sum)
    if (MOMENTS == "adam") | (MOMENTS == "nadam"):
        exp_avg = read(row, at, mask, lines, some, 0, KEPT, TYPE, ALIGNED)
        exp_avg_sq = read(row, at, mask, lines, some, 1, KEPT, TYPE, ALIGNED)
        if PASS != "second":
            exp_avg, exp_avg_sq = adam_advance(c, h, s, exp_avg, exp_avg_sq)
            exp_avg_again = write(row, at, mask, lines, exp_avg, r, 0, KEPT, TYPE, ALIGNED)
            exp_avg_sq_again = write(row, at, mask, lines, exp_avg_sq, r, 1, KEPT, TYPE, ALIGNED)
            if PASS == "first":
                exp_avg = exp_avg_again
                exp_avg_sq = exp_avg_sq_again
        if MOMENTS == "nadam":
            u = nadam_direction(c, h, exp_avg, exp_avg_sq)
        else:
            u = adam_direction(c, exp_avg, exp_avg_sq)
    elif MOMENTS == "adan":
        exp_avg = read(row, at, mask, lines, some, 0, KEPT, TYPE, ALIGNED)
        exp_avg_diff = read(row, at, mask, lines, some, 1, KEPT, TYPE, ALIGNED)
        exp_avg_sq = read(row, at, mask, lines, some, 2, KEPT, TYPE, ALIGNED)
        if PASS != "second":
            prev_grad = read(row, at, mask, lines, some, 3, KEPT, TYPE, ALIGNED)
            exp_avg, exp_avg_diff, exp_avg_sq, prev_grad = adan_advance(
                c, h, exp_avg, exp_avg_diff, exp_avg_sq, prev_grad
            )
            exp_avg_again = write(row, at, mask, lines, exp_avg, r, 0, KEPT, TYPE, ALIGNED)
            exp_avg_diff_again = write(row, at, mask, lines, exp_avg_diff, r, 1, KEPT, TYPE, ALIGNED)
            exp_avg_sq_again = write(row, at, mask, lines, exp_avg_sq, r, 2, KEPT, TYPE, ALIGNED)
            write(row, at, mask, lines, prev_grad, r, 3, KEPT, TYPE, ALIGNED)
            if PASS == "first":
                exp_avg = exp_avg_again
                exp_avg_diff = exp_avg_diff_again
                exp_avg_sq = exp_avg_sq_again
        u = adan_direction(c, exp_avg, exp_avg_diff, exp_avg_sq)
    else:
        momentum_buffer = read(row, at, mask, lines, some, 0, KEPT, TYPE, ALIGNED)
        if PASS != "second":
            momentum_buffer = momentum_advance(c, h, momentum_buffer)
            momentum_buffer_again = write(row, at, mask, lines, momentum_buffer, r, 0, KEPT, TYPE, ALIGNED)
            if PASS == "first":
                momentum_buffer = momentum_buffer_again
        if MOMENTS == "nesterov":
            u = nesterov_direction(c, s, momentum_buffer)
        else:
            u = momentum_buffer
    if DECAY == "in_update":
        u = u + number(c, col.LAM) * z
    return u


@triton.jit
def conservative(
    row, z, at, mask, lines, some,
    GAP: tl.constexpr, KEPT: tl.constexpr, TYPE: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    """The conservative sequence, which `z` is ahead of, and by how much. `GAP` is the place of `x_gap`."""
    if KEPT >> 4 * GAP != 0:
        gap = read(row, at, mask, lines, some, GAP, KEPT, TYPE, ALIGNED)
    else:
        gap = tl.zeros_like(z)
    return z - gap, gap


@triton.jit
def move(
    c, row, stored_z, u, r, at, mask, lines, some,
    MOVEMENT: tl.constexpr, GAP: tl.constexpr, KEPT: tl.constexpr, TYPE: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    """Section 3: the distances change in memory; the new `z`, as it is stored.

    It is as far ahead of `x` as the distance says once that is stored: `z`, and not `x`, takes its rounding. What is
    stored finely enough takes the rounding of `z` in turn: `z` less it is `x` again.
    """
    KIND: tl.constexpr = (KEPT >> 4 * GAP) & 15
    before, gap = conservative(row, stored_z.to(TYPE), at, mask, lines, some, GAP, KEPT, TYPE, ALIGNED)
    if MOVEMENT == "decoupled":
        x = decoupled_move(c, before, u)
        ahead = x
    elif MOVEMENT == "proximal":
        x = proximal_move(c, before, u)
        ahead = x
    else:
        if MOVEMENT == "win":
            x, gap = win_move(c, before, u, gap)
        else:
            y_gap = read(row, at, mask, lines, some, GAP + 1, KEPT, TYPE, ALIGNED)
            x, gap, y_gap = win2_move(c, before, u, gap, y_gap)
            write(row, at, mask, lines, y_gap, r, GAP + 1, KEPT, TYPE, ALIGNED)
        ahead = x + gap
    if (KIND == FLOAT32) | (KIND == REMAINDER):
        new_z = ahead.to(stored_z.dtype)
        write(row, at, mask, lines, new_z.to(TYPE) - x, r, GAP, KEPT, TYPE, ALIGNED)
    elif KIND != 0:
        new_z = (x + write(row, at, mask, lines, gap, r, GAP, KEPT, TYPE, ALIGNED)).to(stored_z.dtype)
    else:
        new_z = ahead.to(stored_z.dtype)
    return new_z
