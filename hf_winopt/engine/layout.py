"""Parameters in blocks: rows (what belongs to one index of the first dimension) cut into 128, the last filled up."""

from __future__ import annotations

import torch
from torch import Tensor

from ..rules import BLOCK


def row_length(shape: torch.Size) -> int:
    """Elements of a row."""
    return shape[1:].numel()


def blocks_per_row(shape: torch.Size) -> int:
    """Blocks of a row, the last of which may be shorter."""
    return -(-row_length(shape) // BLOCK)


def fills_blocks(shape: torch.Size) -> bool:
    """Whether no block is shorter than the others."""
    return row_length(shape) % BLOCK == 0


def in_blocks(tensor: Tensor) -> Tensor:
    """A tensor of a parameter's shape as `[blocks, 128]`: a view where it can be one, else a copy, filled up with 0."""
    rows = tensor.detach().contiguous().view(tensor.shape[0], -1)
    if not fills_blocks(tensor.shape):
        rows = torch.nn.functional.pad(rows, (0, -rows.shape[1] % BLOCK))
    return rows.view(-1, BLOCK)


def scales_in_blocks(scales: Tensor) -> Tensor:
    """Scales `[dim 0, blocks of a row]` as `[blocks, 1]`."""
    return scales.detach().contiguous().view(-1, 1)


def out_of_blocks(blocks: Tensor, shape: torch.Size) -> Tensor:
    """`[blocks, 128]` in the shape of the parameter, without what filled it up."""
    return blocks.view(shape[0], -1)[:, : row_length(shape)].reshape(shape)
