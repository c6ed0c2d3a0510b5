"""Attention step by step, as its second derivative needs it, in as few steps as there can be."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .unformed import Unformed, suits


def scaled_dot_product_attention(
    unformed: Unformed,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor | None:
    """As `torch.nn.functional`'s, with nothing masked.

    Torch's own steps scale query and key both, look for rows that are masked as a whole, and lay out the heads anew for
    each multiplication.
    """
    if attn_mask is not None or is_causal or dropout_p or enable_gqa or not suits(query):
        return None
    if not query.shape[:-2] == key.shape[:-2] == value.shape[:-2]:
        return None
    q, k, v = (each.reshape(-1, *each.shape[-2:]) for each in (query, key, value))
    scaled = q * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    return torch.bmm(torch.bmm(scaled, k.transpose(1, 2)).softmax(-1), v).view(*query.shape[:-1], v.shape[-1])
