"""GELU, `x Phi(x)`, with its second derivative in closed form: `phi(x) (2 - x^2)`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .further import by_torch
from .unformed import Unformed, suits

_backward = torch.ops.aten.gelu_backward


def gelu(unformed: Unformed, input: Tensor, approximate: str = "none") -> Tensor | None:
    """As `torch.nn.functional.gelu`, not approximated."""
    return _Gelu.apply(input) if approximate == "none" and suits(input) else None


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return F.gelu(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return _Gradient.apply(*grads, *ctx.saved_tensors)


class _Gradient(torch.autograd.Function):
    """`g gelu'(x)`."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(g, x)
        return _backward(g, x)

    @staticmethod
    def backward(ctx: Any, *along: Tensor) -> tuple[Tensor, ...]:
        g, x = ctx.saved_tensors
        if torch.is_grad_enabled():
            return by_torch(_backward, (g, x), along)
        (v,) = along
        square = x * x
        density = torch.rsub(square, -0.5 * math.log(2 * math.pi), alpha=0.5).exp_()
        of_x = density.mul_(square.neg_().add_(2)).mul_(g).mul_(v)
        return torch.ops.aten.gelu_backward.grad_input(v, x, grad_input=square), of_x  # in memory that is warm
