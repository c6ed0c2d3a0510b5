"""Two-dimensional convolutions whose weight gradients can be left unformed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .unformed import Unformed, suits, zeros_like

Numbers = int | Sequence[int]


class _Geometry(NamedTuple):
    """How the kernel goes over the image."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int


def conv2d(
    unformed: Unformed,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: Numbers | str = 0,
    dilation: Numbers = 1,
    groups: int = 1,
) -> Tensor | None:
    """As `torch.nn.functional.conv2d`, of a batch, and padded by numbers."""
    if isinstance(padding, str) or not suits(input, weight, bias) or input.ndim != 4:
        return None
    geometry = _Geometry(_pair(stride), _pair(padding), _pair(dilation), groups)
    return _Convolution.apply(input, weight, bias, geometry, unformed)


def _pair(numbers: Numbers) -> list[int]:
    return [numbers, numbers] if isinstance(numbers, int) else list(numbers)


class _Convolution(torch.autograd.Function):
    """With `x` `(n, channels, height, width)`."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: _Geometry, unformed: Unformed
    ) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        ctx.geometry, ctx.unformed = geometry, unformed
        return F.conv2d(x, weight, bias, *geometry)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return *_Gradients.apply(*grads, *ctx.saved_tensors, ctx.geometry, ctx.unformed.now()), None, None


class _Gradients(torch.autograd.Function):
    """Of `x`, and of weight and bias or zeros in their place. Each product of two is a convolution of some kind."""

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: _Geometry, left_out: bool
    ) -> tuple[Tensor | None, ...]:
        ctx.save_for_backward(g, x, weight)
        ctx.geometry = geometry
        formed = not left_out
        mask = [ctx.needs_input_grad[1], formed, formed and bias is not None]
        gx, of_weight, of_bias = _backward(g, x, weight, geometry, mask)
        if left_out:
            return gx, zeros_like(weight, g), zeros_like(bias, g)
        return gx, of_weight, of_bias

    @staticmethod
    def backward(ctx: Any, *along: Any) -> tuple[Tensor | None, ...]:
        v, v_weight, v_bias = along
        g, x, weight = ctx.saved_tensors
        of_g = F.conv2d(x, v_weight, v_bias, *ctx.geometry)
        if v is None:
            return of_g, None, None, None, None, None
        of_g = of_g.add_(F.conv2d(v, weight, None, *ctx.geometry))
        of_x, _, _ = _backward(g, x, v_weight, ctx.geometry, [True, False, False])
        _, of_weight, _ = _backward(g, v, weight, ctx.geometry, [False, True, False])
        return of_g, of_x, of_weight, None, None, None


def _backward(g: Tensor, x: Tensor, weight: Tensor, geometry: _Geometry, mask: list[bool]) -> tuple[Tensor | None, ...]:
    """Torch's own; `mask` says which of the gradients of `x`, weight and bias are wanted."""
    stride, padding, dilation, groups = geometry
    found: tuple[Tensor | None, ...] = torch.ops.aten.convolution_backward(
        g, x, weight, [len(weight)], stride, padding, dilation, False, [0, 0], groups, mask
    )
    return found
