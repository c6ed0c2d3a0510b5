"""Linear maps, `x @ weight.T + bias`, whose weight gradients can be left unformed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .unformed import Unformed, suits, zeros_like


def linear(unformed: Unformed, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
    """As `torch.nn.functional.linear`."""
    return _of_rows(unformed, input, weight, bias) if suits(input, weight, bias) else None


def addmm(unformed: Unformed, input: Tensor, mat1: Tensor, mat2: Tensor, **scales: Any) -> Tensor | None:
    """As `torch.addmm` of a bias, as GPT-2's layers call it: their weight is `(in, out)`."""
    if scales or not suits(mat1, mat2, input) or input.ndim != 1:
        return None
    return _of_rows(unformed, mat1, mat2.t(), input)


def _of_rows(unformed: Unformed, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    flat = input.reshape(-1, input.shape[-1])
    return _Linear.apply(flat, weight, bias, unformed).view(*input.shape[:-1], len(weight))


class _Linear(torch.autograd.Function):
    """With `x` `(n, in)`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, unformed: Unformed) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        ctx.unformed = unformed
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return *_Gradients.apply(*grads, *ctx.saved_tensors, ctx.unformed.now()), None


class _Gradients(torch.autograd.Function):
    """`g @ weight`, and `g.T @ x` and `sum g` or zeros in their place."""

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, left_out: bool
    ) -> tuple[Tensor | None, ...]:
        ctx.save_for_backward(g, x, weight)
        gx = g @ weight if ctx.needs_input_grad[1] else None
        if left_out:
            return gx, zeros_like(weight, g), zeros_like(bias, g)
        return gx, g.t() @ x, None if bias is None else g.sum(0)

    @staticmethod
    def backward(ctx: Any, *along: Any) -> tuple[Tensor | None, ...]:
        v, v_weight, v_bias = along
        g, x, weight = ctx.saved_tensors
        of_g = F.linear(x, v_weight, v_bias)
        if v is None:
            return of_g, None, None, None, None
        return of_g.addmm_(v, weight.t()), g @ v_weight, g.t() @ v, None, None
