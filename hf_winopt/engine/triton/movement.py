"""The twins of `rules.movement`: how the parameter `z` moves along the direction `u`."""

from __future__ import annotations

import triton
import triton.language as tl  # noqa: F401  (the interpreter wants it in every module with kernels)

from . import columns as col
from .arithmetic import number, toward


@triton.jit
def conservative(c, x, u):
    """`(x - eta u) / (1 + eta lam)`: Win's `x`, and the whole step of a proximal rule."""
    return (x + number(c, col.MINUS_LR) * u) * number(c, col.SHRINK)


@triton.jit
def reckless(c, z, beyond):
    """`c (z - r1 eta u + r1 x)`: the mean of `z` and of `beyond = x - eta u`."""
    return toward(z, beyond, number(c, col.WIN)) * number(c, col.WIN_SHRINK)


@triton.jit
def decoupled_move(c, z, u):
    return z * number(c, col.KEEP) + number(c, col.MINUS_LR) * u  # z <- (1 - eta lam) z - eta u


@triton.jit
def proximal_move(c, z, u):
    return conservative(c, z, u)  # z <- (z - eta u) / (1 + eta lam)


@triton.jit
def win_move(c, z, u, x):
    x = conservative(c, x, u)
    return reckless(c, z, x + number(c, col.MINUS_LR) * u), x


@triton.jit
def win2_move(c, z, u, x, y):
    x = conservative(c, x, u)
    beyond = x + number(c, col.MINUS_LR) * u
    y = reckless(c, y, beyond)
    z = toward(z, toward(beyond, y, number(c, col.Y_SHARE)), number(c, col.WIN2)) * number(c, col.WIN2_SHRINK)
    return z, x, y
