"""A step over one block of one parameter, composed of the twins of the rules: load, update, store.

`row` is the parameter's row of addresses, `c` its coefficients; `at` are the 64-bit places of the block's elements;
`mask` says which exist. State and arithmetic are of type `TYPE`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from . import columns as col
from .arithmetic import number, pointer
from .moments import (
    adam_advance,
    adam_direction,
    adan_advance,
    adan_direction,
    momentum_advance,
    nesterov_direction,
)
from .movement import decoupled_move, proximal_move, win2_move, win_move
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
    c, row, z, g, abs_sum, at, mask, AGAIN: tl.constexpr,
    TRANSFORM: tl.constexpr, MOMENTS: tl.constexpr, DECAY: tl.constexpr, TYPE: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    """Sections 0 to 2 but for the trust ratio: the moments advance in memory; the direction `r`.

    With AGAIN they have advanced already: recomputing the direction is cheaper than storing it (LAMB).
    """
    h, s = transformed(TRANSFORM, gradient(c, z, g, DECAY), abs_sum)
    first = pointer(row, col.STATE, TYPE, ALIGNED) + at
    if MOMENTS == "adam":
        second = pointer(row, col.STATE + 1, TYPE, ALIGNED) + at
        exp_avg = tl.load(first, mask=mask)
        exp_avg_sq = tl.load(second, mask=mask)
        if not AGAIN:
            exp_avg, exp_avg_sq = adam_advance(c, h, s, exp_avg, exp_avg_sq)
            tl.store(first, exp_avg, mask=mask)
            tl.store(second, exp_avg_sq, mask=mask)
        r = adam_direction(c, exp_avg, exp_avg_sq)
    elif MOMENTS == "adan":
        second = pointer(row, col.STATE + 1, TYPE, ALIGNED) + at
        third = pointer(row, col.STATE + 2, TYPE, ALIGNED) + at
        exp_avg = tl.load(first, mask=mask)
        exp_avg_diff = tl.load(second, mask=mask)
        exp_avg_sq = tl.load(third, mask=mask)
        if not AGAIN:
            fourth = pointer(row, col.STATE + 3, TYPE, ALIGNED) + at
            prev_grad = tl.load(fourth, mask=mask)
            exp_avg, exp_avg_diff, exp_avg_sq, prev_grad = adan_advance(
                c, h, exp_avg, exp_avg_diff, exp_avg_sq, prev_grad
            )
            tl.store(first, exp_avg, mask=mask)
            tl.store(second, exp_avg_diff, mask=mask)
            tl.store(third, exp_avg_sq, mask=mask)
            tl.store(fourth, prev_grad, mask=mask)
        r = adan_direction(c, exp_avg, exp_avg_diff, exp_avg_sq)
    else:
        momentum_buffer = tl.load(first, mask=mask)
        if not AGAIN:
            momentum_buffer = momentum_advance(c, h, momentum_buffer)
            tl.store(first, momentum_buffer, mask=mask)
        if MOMENTS == "nesterov":
            r = nesterov_direction(c, s, momentum_buffer)
        else:
            r = momentum_buffer
    if DECAY == "in_update":
        r = r + number(c, col.LAM) * z
    return r


@triton.jit
def move(c, row, z, u, at, mask, MOVEMENT: tl.constexpr, X: tl.constexpr, TYPE: tl.constexpr, ALIGNED: tl.constexpr):
    """Section 3: `x` and `y` move in memory; the new `z`. `X` is the column of the address of `x`."""
    if MOVEMENT == "decoupled":
        z = decoupled_move(c, z, u)
    elif MOVEMENT == "proximal":
        z = proximal_move(c, z, u)
    else:
        x_at = pointer(row, X, TYPE, ALIGNED) + at
        x = tl.load(x_at, mask=mask)
        if MOVEMENT == "win":
            z, x = win_move(c, z, u, x)
        else:
            y_at = pointer(row, X + 1, TYPE, ALIGNED) + at
            y = tl.load(y_at, mask=mask)
            z, x, y = win2_move(c, z, u, x, y)
            tl.store(y_at, y, mask=mask)
        tl.store(x_at, x, mask=mask)
    return z
