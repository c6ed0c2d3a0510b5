"""Embeddings, whose gradient can be left unformed: it is as large as the vocabulary."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .unformed import Unformed, suits, zeros_like


def embedding(
    unformed: Unformed,
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor | None:
    """As `torch.nn.functional.embedding`, of a plain table."""
    if max_norm is not None or scale_grad_by_freq or sparse or not suits(weight, weight) or input.numel() == 0:
        return None
    padding = -1 if padding_idx is None else padding_idx % len(weight)
    return _Embedding.apply(weight, input, padding, unformed)


class _Embedding(torch.autograd.Function):
    """With `indices` of any shape; the row of `padding` gets no gradient, -1 is none."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, indices: Tensor, padding: int, unformed: Unformed) -> Tensor:
        ctx.save_for_backward(weight, indices)
        ctx.padding, ctx.unformed = padding, unformed
        return F.embedding(indices, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return _Gradient.apply(*grads, *ctx.saved_tensors, ctx.padding, ctx.unformed.now()), None, None, None


class _Gradient(torch.autograd.Function):
    """The rows of `g` added up where they were taken from, or zeros in its place."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, weight: Tensor, indices: Tensor, padding: int, left_out: bool) -> Tensor | None:
        ctx.save_for_backward(indices)
        ctx.padding = padding
        if left_out:
            return zeros_like(weight, g)
        found: Tensor = torch.ops.aten.embedding_dense_backward(g, indices, len(weight), padding, False)
        return found

    @staticmethod
    def backward(ctx: Any, *along: Tensor) -> tuple[Tensor | None, ...]:
        (v,) = along
        (indices,) = ctx.saved_tensors
        of_g = F.embedding(indices, v)
        if ctx.padding >= 0:
            of_g = of_g.masked_fill((indices == ctx.padding).unsqueeze(-1), 0)
        return of_g, None, None, None, None
