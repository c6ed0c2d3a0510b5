"""The twins of `rules.transforms`."""

from __future__ import annotations

import triton
import triton.language as tl

from .arithmetic import divided


@triton.jit
def agr(g, abs_sum):
    """`h = g (1 - |g| / sum|g|)`, and `h = g` where the sum is 0."""
    share = divided(tl.abs(g), tl.where(abs_sum == 0, 1.0, abs_sum) + tl.zeros_like(g))
    return tl.where(abs_sum == 0, g, g - g * share)


@triton.jit
def adal(g, abs_sum):
    """`h = ||g||_1 g`."""
    return g * abs_sum


@triton.jit
def transformed(TRANSFORM: tl.constexpr, g, abs_sum):
    """`(h, s)`: what feeds the first moment, and what feeds the second (`g` under AGR, `h` under AdaL)."""
    h = g
    s = g
    if TRANSFORM == "agr":
        h = agr(g, abs_sum)
    if TRANSFORM == "adal":
        h = adal(g, abs_sum)
        s = h
    return h, s
