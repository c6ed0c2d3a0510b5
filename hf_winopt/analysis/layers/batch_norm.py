"""Batch norm at rest, an affine map of each channel, whose weight gradients can be left unformed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .unformed import Unformed, suits, zeros_like


def batch_norm(
    unformed: Unformed,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    """As `torch.nn.functional.batch_norm`, with a weight, by the running statistics."""
    if training or weight is None or running_mean is None or running_var is None or not suits(input, weight, bias):
        return None
    return _BatchNorm.apply(input, weight, bias, running_mean, running_var, eps, unformed)


def _normalized(x: Tensor, mean: Tensor, var: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """`weight (x - mean) rstd + bias`."""
    return F.batch_norm(x, mean, var, weight, bias, eps=eps)


def _scaled(x: Tensor, by: Tensor) -> Tensor:
    """Each channel by a number of its own."""
    return x * by.view(-1, *(1 for _ in x.shape[2:]))


class _BatchNorm(torch.autograd.Function):
    """With `x` `(n, channels, ...)`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        mean: Tensor,
        var: Tensor,
        eps: float,
        unformed: Unformed,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, bias, mean, var)
        ctx.eps, ctx.unformed = eps, unformed
        return _normalized(x, mean, var, weight, bias, eps)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        of_x, of_weight, of_bias = _Gradients.apply(*grads, *ctx.saved_tensors, ctx.eps, ctx.unformed.now())
        return of_x, of_weight, of_bias, None, None, None, None


class _Gradients(torch.autograd.Function):
    """`weight rstd g`, and `sum g (x - mean) rstd` and `sum g` or zeros in their place."""

    @staticmethod
    def forward(
        ctx: Any,
        g: Tensor,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        mean: Tensor,
        var: Tensor,
        eps: float,
        left_out: bool,
    ) -> tuple[Tensor | None, ...]:
        ctx.save_for_backward(g, x, weight, mean, var)
        ctx.eps = eps
        if left_out:
            return _scaled(g, weight * (var + eps).rsqrt()), zeros_like(weight, g), zeros_like(bias, g)
        gx, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            g, x, weight, mean, var, None, None, False, eps, [True, True, True]
        )
        return gx, of_weight, None if bias is None else of_bias

    @staticmethod
    def backward(ctx: Any, *along: Any) -> tuple[Tensor | None, ...]:
        v, v_weight, v_bias = along
        g, x, weight, mean, var = ctx.saved_tensors
        rstd = (var + ctx.eps).rsqrt()
        of_g = _normalized(x, mean, var, v_weight, v_bias, ctx.eps).add_(_scaled(v, weight * rstd))
        of_weight = rstd * (v * g).transpose(0, 1).flatten(1).sum(1)
        return of_g, _scaled(g, v_weight * rstd), of_weight, None, None, None, None, None
