"""Sums over whole parameters, found before or during a step: `sum|g|`, `||w||`, `||r||`, and the norm of all gradients.

They are taken block by block and the blocks added in float64, so that a parameter of many millions of elements loses
nothing. Within a block it is `sum`, which adds in a tree: `torch.linalg.vector_norm` of one block can be wrong by 1e-3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..rules import Coefficient, Coefficients, Rule, gradient
from .memory import has_values
from .shards import Sharing, complete
from .work import Segment, compute_dtype, line_or_copy, views

BLOCK = 1 << 18
"""Elements of a block: small enough that what one operation writes is in the cache when the next one reads it."""


def blocks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Walk flat tensors of one length in step, `BLOCK` elements at a time; or blocks, with their scales."""
    rows = BLOCK if tensors[0].ndim == 1 else max(BLOCK // tensors[0].shape[1], 1)
    return zip(*(tensor.split(rows) for tensor in tensors))


def blocks_of(segment: Segment) -> Iterator[tuple[Tensor, ...]]:
    """`z`, `g` and the states of a segment by blocks; parameters that lie end to end are one block."""
    tensors = (segment.z, segment.g, *segment.state.values())
    return blocks(*tensors) if len(segment.sizes) == 1 else iter([tensors])


def widest(device: torch.device) -> torch.dtype:
    """The type that sums are added in: float64 (float32 on MPS, which has no float64)."""
    return torch.float32 if device.type == "mps" else torch.float64


def total(parts: Sequence[Tensor]) -> Tensor:
    """The sum of tensors of one shape, in the widest type."""
    return torch.stack([part.to(widest(part.device)) for part in parts]).sum(0)


def squares(tensor: Tensor) -> Tensor:
    """The sum of squares of one block, a 0-dim tensor."""
    return tensor.square().sum()


def on_host(value: Tensor, dtype: torch.dtype) -> Coefficient:
    """A float where reading it costs nothing (CPU); on an accelerator the 0-dim tensor, so that no step waits."""
    return value.item() if value.device.type == "cpu" and has_values(value) else value.to(dtype)


def by_parameter(values: Tensor, segment: Segment) -> Tensor:
    """The sums of one block of values: one of it all, or one of each of the parameters that lie end to end."""
    if len(segment.sizes) == 1:
        return values.sum().view(1)
    return torch.stack([part.sum() for part in values.split(segment.sizes)])


def spread(numbers: Tensor, segment: Segment) -> Coefficient:
    """Each parameter's own number as a coefficient: one, or one an element where parameters lie end to end."""
    dtype = compute_dtype(segment.z.dtype)
    if len(segment.sizes) == 1:
        return on_host(numbers[0], dtype)
    sizes = torch.tensor(segment.sizes, device="cpu").to(numbers.device, non_blocking=True)
    return numbers.to(dtype).repeat_interleave(sizes, output_size=segment.z.numel())


def needs_sum(rule: Rule, c: Coefficients) -> bool:
    """Whether `sum|g|` is yet to be found."""
    return rule.transform != "none" and "abs_sum" not in c


def abs_sums(segment: Segment) -> Tensor:
    """`sum|g|` of each parameter, of the gradient that section 0 leaves (scaled, clipped, with l2 decay)."""
    dtype = compute_dtype(segment.z.dtype)
    return total(
        [by_parameter(gradient(segment.c, z.to(dtype), g.to(dtype)).abs(), segment) for z, g, *_ in blocks_of(segment)]
    )


def grad_norm(grads: Sequence[Tensor], sharings: Sequence[Sharing | None], device: torch.device) -> Tensor:
    """`||all g||_2` in float64, a 0-dim tensor on the first gradient's device.

    Args:
        grads: gradients, or the shards of them that are here.
        sharings: of each; none where all are whole.
        device: where the norm is if there is nothing that it is of, and so 0.
    """
    if any(sharings):
        return _grad_norm_of_shards(grads, sharings)
    parts = _squares_of_blocks(grads)
    return total(parts).sqrt() if parts else torch.zeros((), dtype=widest(device), device=device)


def _squares_of_blocks(grads: Sequence[Tensor]) -> list[Tensor]:
    return [
        squares(piece.to(compute_dtype(g.dtype))).to(grads[0].device)
        for g in grads
        if g.numel()
        for (piece,) in blocks(*(views([g]) or [line_or_copy(g)]))
    ]


def _grad_norm_of_shards(grads: Sequence[Tensor], sharings: Sequence[Sharing | None]) -> Tensor:
    """What is shared on a mesh is added up here first: one number for each mesh is enough."""
    nothing = torch.zeros((), dtype=widest(grads[0].device), device=grads[0].device)
    sums: dict[Sharing | None, list[Tensor]] = {None: [nothing]}
    for g, each in zip(grads, sharings):
        # a process has copies of one parameter and shards of another on the same mesh: its part of the sum is one
        key = None if each is None else Sharing(each.mesh, True)
        mine = _squares_of_blocks([g]) if each is None or each.counts else []
        sums.setdefault(key, [nothing]).extend(part.to(nothing.device) for part in mine)
    found = [(each, total(parts).reshape(1)) for each, parts in sums.items()]
    # one by one: nothing has to be picked out of a tensor, for which a device would wait
    return torch.cat([one if each is None else complete(one, [each]) for each, one in found]).sum().sqrt()
