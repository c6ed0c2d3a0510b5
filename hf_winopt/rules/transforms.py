"""docs/math.md, section 1: what is done to a gradient before the moments see it.

Each transform takes the gradient and `sum|g|` over the whole parameter, which the engine finds before the step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .arithmetic import Coefficient, is_known

TRANSFORMS = ("none", "agr", "adal")

OFF = 0.0
"""The sum with which AGR leaves a gradient as it is."""


def agr(g: Tensor, abs_sum: Coefficient) -> Tensor:
    """`h = g (1 - |g| / sum|g|)`, and `h = g` where the sum is 0 (An Adaptive Gradient Regularization Method)."""
    if is_known(abs_sum, OFF):
        return g
    h = torch.addcmul(g, g, g.abs() / abs_sum, value=-1)
    return torch.where(abs_sum == OFF, g, h) if isinstance(abs_sum, Tensor) else h


def adal(g: Tensor, abs_sum: Coefficient) -> Tensor:
    """`h = ||g||_1 g` (Adaptive Gradient Transformation, AdaL)."""
    return g * abs_sum


def agr_suits(whole: Tensor) -> bool:
    """Whether AGR is for this parameter, given whole: of a single element it would leave nothing of the gradient."""
    return whole.ndim >= 2 and whole.numel() > 1


def agr_ends(t: int, agr_steps: int | None) -> bool:
    """Whether AGR is over at step `t` (the first is 1)."""
    return agr_steps is not None and t > agr_steps


def transformed(transform: str, g: Tensor, abs_sum: Coefficient) -> tuple[Tensor, Tensor]:
    """`(h, s)`: the transformed gradient, and what feeds Adam's second moment (`g` under AGR, `h` under AdaL)."""
    if transform == "agr":
        return agr(g, abs_sum), g
    if transform == "adal":
        h = adal(g, abs_sum)
        return h, h
    return g, g
