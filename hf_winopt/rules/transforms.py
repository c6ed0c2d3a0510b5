"""MATH section 1: what is done to a gradient before the moments see it.

Each transform takes the gradient and one number per parameter, which the engine makes from `sum|g|` over the whole
parameter before the step (`scale_from_sum`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .arithmetic import Coefficient, add_scaled, is_known

TRANSFORMS = ("none", "agr", "adal")

OFF = 0.0
"""The scale with which AGR leaves a gradient as it is."""


def agr(g: Tensor, scale: Coefficient) -> Tensor:
    """`h = g (1 - |g| / sum|g|)`, with `scale = 1 / sum|g|` (An Adaptive Gradient Regularization Method, Eq. 3)."""
    if is_known(scale, OFF):
        return g
    return add_scaled(g, g * g.abs(), -scale)


def adal(g: Tensor, scale: Coefficient) -> Tensor:
    """`h = ||g||_1 g`, with `scale = ||g||_1` (Adaptive Gradient Transformation, AdaL)."""
    return g * scale


def agr_applies(ndim: int, t: int, agr_steps: int | None) -> bool:
    """Whether AGR changes the gradient of a parameter of `ndim` dimensions at its step `t` (the first is 1)."""
    return ndim >= 2 and (agr_steps is None or t <= agr_steps)


def scale_from_sum(transform: str, abs_sum: Coefficient) -> Coefficient:
    """The transform's number from `abs_sum = sum|g|` over the whole parameter; AGR is off where the sum is 0."""
    if transform == "adal":
        return abs_sum
    if isinstance(abs_sum, Tensor):
        return torch.where(abs_sum == 0, OFF, 1 / abs_sum)
    return OFF if abs_sum == 0 else 1 / abs_sum


def transformed(transform: str, g: Tensor, scale: Coefficient) -> tuple[Tensor, Tensor]:
    """`(h, s)`: what feeds the first moment, and what feeds the second (`g` under AGR, `h` under AdaL)."""
    if transform == "agr":
        return agr(g, scale), g
    if transform == "adal":
        h = adal(g, scale)
        return h, h
    return g, g
