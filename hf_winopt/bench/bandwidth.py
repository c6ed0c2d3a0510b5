"""How fast this machine moves memory when that is all it does: the yardstick of every step."""

from __future__ import annotations

import statistics

import torch

from .timing import interleaved

SIZE = 1 << 29
"""Bytes of the tensor that is copied, where so many are free: far more than any cache holds."""

ROUNDS = 9


def copy_bandwidth(device: torch.device, size: int = SIZE) -> float:
    """Bytes a second that copying one tensor of `size` bytes into another reads and writes; the median of 9 copies.

    A CPU may read each line of the target before it overwrites it, which is not counted; steps, which change tensors in
    place, have no such reads and can be faster than this.
    """
    source = torch.ones(size // 4, dtype=torch.float32, device=device)
    target = torch.zeros_like(source)
    samples = interleaved({"copy": lambda: target.copy_(source)}, ROUNDS, device)["copy"]
    return 2 * 4 * source.numel() / (statistics.median(sample.ms for sample in samples) / 1e3)
