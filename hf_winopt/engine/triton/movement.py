"""The twins of `rules.movement`: how the parameter `z` moves along the direction `u`.

That is from `before`, which `z` was ahead of, to `x`; and the distances from there.
"""

from __future__ import annotations

import triton
import triton.language as tl  # noqa: F401  (the interpreter wants it in every module with kernels)

from . import columns as col
from .arithmetic import number


@triton.jit
def conservative(c, x, u):
    """`(x - eta u) / (1 + eta lam)`: Win's `x`, and the whole step of a proximal rule."""
    return (x + number(c, col.MINUS_LR) * u) * number(c, col.SHRINK)


@triton.jit
def decoupled_move(c, before, u):
    return before * number(c, col.KEEP) + number(c, col.MINUS_LR) * u  # z <- (1 - eta lam) z - eta u


@triton.jit
def proximal_move(c, before, u):
    return conservative(c, before, u)  # z <- (z - eta u) / (1 + eta lam)


@triton.jit
def win_gap(c, x_step, gap):
    return gap * number(c, col.WIN) + x_step * number(c, col.WIN_STEP)  # z - x <- c (z - x + (r1 - 1) step of x)


@triton.jit
def win_move(c, before, u, gap):
    x = conservative(c, before, u)
    return x, win_gap(c, x - before, gap)


@triton.jit
def win2_gaps(c, x_step, gap, y_gap):
    y_gap = win_gap(c, x_step, y_gap)  # y - x <- c (y - x + (r1 - 1) step of x)
    gap = gap * number(c, col.WIN2) + x_step * number(c, col.WIN2_STEP) + y_gap * number(c, col.WIN2_Y)
    return gap, y_gap  # z - x <- c2 (z - x + (r2 - 1) step of x + (r2/r1) (y - x))


@triton.jit
def win2_move(c, before, u, gap, y_gap):
    x = conservative(c, before, u)
    gap, y_gap = win2_gaps(c, x - before, gap, y_gap)
    return x, gap, y_gap
