"""Steps within a CUDA graph: what cannot be captured is refused, rather than left out of every replay."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def capturing(params: Iterable[Tensor]) -> bool:
    """Whether a CUDA graph is being captured on the current stream of a device of the parameters."""
    return any(p.is_cuda for p in params) and torch.cuda.is_current_stream_capturing()


def refuse_capture(params: Iterable[Tensor], backend: str, why: str) -> None:
    """
    Raises:
        RuntimeError: a CUDA graph is being captured, which cannot be, and why.
    """
    if capturing(params):
        raise RuntimeError(f"this step cannot be captured in a graph: {why} (backend={backend!r})")
