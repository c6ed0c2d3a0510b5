"""Sums over whole parameters that lie in shards: of all batches of a device, each kind completed by one collective."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..shards import Completion
from .batch import Batch


class SharedSums:
    """Where the batches leave the sums over their shards, and find those over the whole.

    Every process comes by here at every step, whether or not it has any elements: it cannot know what the device knows,
    such as that AGR has ended.

    Args:
        batches: of one device, in the order that all processes have in common; those that share nothing are left out.
        device: theirs.
    """

    def __init__(self, batches: Sequence[Batch], device: torch.device) -> None:
        mine = [batch for batch in batches if batch.sharings]
        sharings = [each for batch in mine for each in batch.sharings]
        rows = torch.zeros(3, len(sharings), dtype=torch.float64, device=device)
        for batch, sums in zip(mine, rows.split([batch.size for batch in mine], dim=1)):
            batch.leave_sums_in(sums)
        transforms = any(batch.rule.transform != "none" for batch in mine)
        adapts = any(batch.rule.trust_ratio for batch in mine)
        self._of_g = Completion(sharings if transforms else [], device)
        self._of_norms = Completion(2 * sharings if adapts else [], device)
        self._abs, self._norms = rows[0], rows[1:].view(-1)
        self.tensors = (rows, *self._of_g.tensors, *self._of_norms.tensors)

    def complete_abs(self) -> None:
        """Complete `sum|g|` of every parameter."""
        _complete(self._abs, self._of_g)

    def complete_norms(self) -> None:
        """Complete the sums of squares that LAMB's ratio is made of."""
        _complete(self._norms, self._of_norms)


def _complete(sums: Tensor, completion: Completion) -> None:
    completed = completion(sums)
    if completed is not sums:
        sums.copy_(completed)
