"""What a step sends to the device beside its launches: one small copy that neither side waits for."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import torch
from torch import Tensor

RING = 4
"""So many copies may be under way before the host waits for the first of them."""


class _Pinned(NamedTuple):
    """Memory of the host that the device reads by itself, and when it has done so."""

    memory: Tensor
    done: Any  # an event of the device


class Upload:
    """Numbers of 64 bits on a device, of which each step has its own.

    From memory of the host that is not pinned a copy of more than 64 KB may wait for the device, so CUDA has some that
    is, for a few steps in turn.

    Args:
        length: how many numbers.
        device: where they go.
    """

    def __init__(self, length: int, device: torch.device) -> None:
        self.tensor = torch.zeros(length, dtype=torch.int64, device=device)
        self._sent: bytearray | None = None
        self._ring: deque[_Pinned] = deque()
        self._of_graph: Tensor | None = None
        if device.type == "cuda":
            # a graph that is captured reads its memory at every replay; none can be had during the capture
            self._of_graph, *others = torch.empty(1 + RING, length, dtype=torch.int64, pin_memory=True).unbind()
            self._ring.extend(_Pinned(memory, torch.cuda.Event()) for memory in others)

    def send(self, packed: bytearray, capturing: bool) -> None:
        """Send these, unless they are there already; in a graph that is being captured, at each of its replays."""
        if packed == self._sent:
            return
        host, self._sent = torch.frombuffer(packed, dtype=torch.int64), None
        if capturing:
            assert self._of_graph is not None
            self.tensor.copy_(self._of_graph.copy_(host), non_blocking=True)
            return
        if self._ring:
            pinned = self._ring[0]
            self._ring.rotate(-1)
            pinned.done.synchronize()  # of `RING` steps ago
            self.tensor.copy_(pinned.memory.copy_(host), non_blocking=True)
            pinned.done.record()
        else:
            self.tensor.copy_(host, non_blocking=True)
        self._sent = packed
