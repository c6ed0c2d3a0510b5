"""Sums over whole parameters, found before or during a step: `sum|g|`, `||w||`, `||r||`, and the norm of all gradients.

They are taken block by block and the blocks added in float64, so that a parameter of many millions of elements loses
nothing. Within a block it is `sum`, which adds in a tree: `torch.linalg.vector_norm` of one block can be wrong by 1e-3.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..rules import Coefficient, Rule, gradient
from .work import Work, compute_dtype, flat

BLOCK = 1 << 18
"""Elements of a block: small enough that what one operation writes is in the cache when the next one reads it."""


def blocks(*tensors: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """Walk flat tensors of one length in step, `BLOCK` elements at a time."""
    return zip(*(tensor.split(BLOCK) for tensor in tensors))


def total(parts: Sequence[Tensor]) -> Tensor:
    """The sum of 0-dim tensors, in float64 (float32 on MPS, which has no float64)."""
    widest = torch.float32 if parts[0].device.type == "mps" else torch.float64
    return torch.stack([part.to(widest) for part in parts]).sum()


def squares(tensor: Tensor) -> Tensor:
    """The sum of squares of one block, a 0-dim tensor."""
    return tensor.square().sum()


def on_host(value: Tensor, dtype: torch.dtype) -> Coefficient:
    """A float where reading it costs nothing (CPU); on an accelerator the 0-dim tensor, so that no step waits."""
    return value.item() if value.device.type == "cpu" else value.to(dtype)


def abs_sum(work: Work) -> Coefficient:
    """`sum|g|` over the whole parameter, of the gradient that section 0 leaves (scaled, clipped, with l2 decay)."""
    dtype = compute_dtype(work.z.dtype)
    z, g = flat([work.z, work.g])
    if not z.numel():
        return 0.0
    parts = [gradient(work.c, a.to(dtype), b.to(dtype)).abs().sum() for a, b in blocks(z, g)]
    return on_host(total(parts), dtype)


def with_sums(rule: Rule, works: list[Work]) -> list[Work]:
    """The works, each that needs it with `sum|g|` among its coefficients."""
    if rule.transform == "none":
        return works
    return [replace(work, c={**work.c, "abs_sum": abs_sum(work)}) if work.needs_sum(rule) else work for work in works]


def grad_norm(grads: Sequence[Tensor]) -> Tensor:
    """`||all g||_2` in float64, a 0-dim tensor on the first gradient's device; 0 for no gradients."""
    parts = [
        squares(piece.to(compute_dtype(g.dtype))).to(grads[0].device)
        for g in grads
        if g.numel()
        for (piece,) in blocks(*flat([g]))
    ]
    return total(parts).sqrt() if parts else torch.zeros((), dtype=torch.float64)
