"""Layer norm with its second derivative in closed form.

For rows of `n` elements, `hat = (x - mean) rstd` and the projection `P v = v - mean(v) - hat mean(v hat)`:

    y = weight hat + bias
    gx = rstd P(weight g),    gw = sum g hat,    gb = sum g

and backward through these along `v`, `vw`, `vb`, with `p = rstd P v`:

    for g:       weight p + vw hat + vb
    for weight:  sum g p
    for x:       rstd P(vw g) - rstd (mean(weight g hat) p + mean(v hat) gx + mean(v gx) hat)

The last line is the derivative of `<v, gx>` through `rstd` and through both means, and of `<vw, gw>`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .further import by_torch
from .unformed import Unformed, suits, zeros_like

_norm = torch.native_layer_norm
_norm_backward = torch.ops.aten.native_layer_norm_backward


def layer_norm(
    unformed: Unformed,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor | None:
    """As `torch.nn.functional.layer_norm`, with a weight."""
    if weight is None or not suits(input, weight, bias) or input.shape[-weight.ndim :] != weight.shape:
        return None
    rows = input.reshape(-1, weight.numel())
    y = _LayerNorm.apply(rows, weight.reshape(-1), None if bias is None else bias.reshape(-1), eps, unformed)
    return y.view(input.shape)


class _LayerNorm(torch.autograd.Function):
    """With `x` `(rows, n)`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, eps: float, unformed: Unformed) -> Tensor:
        y, mean, rstd = _norm(x, weight.shape, weight, bias, eps)
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        ctx.eps, ctx.unformed = eps, unformed
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return (*_Gradients.apply(*grads, *ctx.saved_tensors, ctx.eps, ctx.unformed.now()), None, None)


class _Gradients(torch.autograd.Function):
    """`gx`, `gw` and `gb`, or zeros in the place of the last two."""

    @staticmethod
    def forward(
        ctx: Any,
        g: Tensor,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        mean: Tensor,
        rstd: Tensor,
        eps: float,
        left_out: bool,
    ) -> tuple[Tensor | None, ...]:
        mask = [True, not left_out, bias is not None and not left_out]
        gx, gw, gb = _norm_backward(g, x, weight.shape, mean, rstd, weight, bias, mask)
        ctx.save_for_backward(g, x, weight, mean, rstd)
        ctx.eps = eps
        return (gx, zeros_like(weight, g), zeros_like(bias, g)) if left_out else (gx, gw, gb)

    @staticmethod
    def backward(ctx: Any, *along: Any) -> tuple[Tensor | None, ...]:
        g, x, weight, mean, rstd = ctx.saved_tensors
        v, vw, vb = along
        if torch.is_grad_enabled():
            of_g, of_x, of_weight = by_torch(partial(_of_x_and_weight, eps=ctx.eps), (g, x, weight), (v, vw))
        else:
            of_g, of_x, of_weight = _closed(v, vw, g, x, weight, mean, rstd)
        return of_g if vb is None else of_g + vb, of_x, of_weight, None, None, None, None, None


def _of_x_and_weight(g: Tensor, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, ...]:
    return torch.autograd.grad(F.layer_norm(x, weight.shape, weight, eps=eps), (x, weight), g, create_graph=True)


def _closed(
    v: Tensor, vw: Tensor, g: Tensor, x: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """By the formulas above but for `vb`: what it gives for `g`, `x` and `weight`."""
    only_x = [True, False, False]
    hat = (x - mean).mul_(rstd)
    p, _, _ = _norm_backward(v, x, weight.shape, mean, rstd, None, None, only_x)
    of_g = (p * weight).addcmul_(hat, vw)
    gx, _, _ = _norm_backward(g, x, weight.shape, mean, rstd, weight, None, only_x)  # not kept: it is soon made again
    of_x, _, _ = _norm_backward(g, x, weight.shape, mean, rstd, vw, None, only_x)
    scale = -rstd / weight.numel()
    of_x.addcmul_(p, scale * (g * hat).mv(weight).unsqueeze(1))
    of_x.addcmul_(gx, scale * _dot(v, hat))
    of_x.addcmul_(hat, scale * _dot(v, gx))
    return of_g, of_x, p.mul_(g).sum(0)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Row by row, `(rows, 1)`."""
    return (a * b).sum(1, keepdim=True)
