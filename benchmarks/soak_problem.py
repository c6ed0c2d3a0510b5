"""Gradients that never come to rest, for parameters of odd shapes: what `benchmarks.soak` steps its optimizers on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

WORDS_AT_ONCE = 8
COMMON_WORDS = 16
"""A word is e times rarer than the one that stands so many before it: the last comes once in hundreds of steps."""

SHAPES: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
    "embedding": ((97, 43), torch.float32),
    "matrix": ((67, 63), torch.float32),
    "kernel": ((3, 5, 7), torch.float32),
    "bias": ((67,), torch.float32),
    "scale": ((), torch.float32),
    "shift": ((1,), torch.float32),
    "bf16": ((71, 59), torch.bfloat16),
}


class Problem:
    """Noisy quadratics with a minimum at `target`, and an embedding of which a step touches a few rows.

    Args:
        dtypes: parameters of other types are left out.
        seed: of everything drawn.
        turned: whether matrices lie the other way, their rows long enough to be stored in blocks.
    """

    def __init__(self, dtypes: Sequence[torch.dtype], seed: int = 0, turned: bool = False) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        kept = {
            name: (shape[::-1] if turned and len(shape) == 2 else shape, dtype)
            for name, (shape, dtype) in SHAPES.items()
            if dtype in dtypes
        }
        self.names, self.dtypes = list(kept), [dtype for _, dtype in kept.values()]
        self.start = [self._normal(shape).to(dtype) for shape, dtype in kept.values()]
        self._target = [self._normal(shape) for shape, _ in kept.values()]
        self._noise = self._normal((1 << 20,))
        self._curvature = [0.05 + 0.45 * self._uniform(shape) for shape, _ in kept.values()]

    def gradients(self, at: Sequence[Tensor]) -> list[Tensor]:
        """Of the parameters' types, at these values; each call draws anew, at times much louder than at others."""
        loudness = 2.0 ** self._normal(()).item()
        gradients = []
        for name, dtype, z, target, curvature in zip(self.names, self.dtypes, at, self._target, self._curvature):
            if name == "embedding":
                g, rows = torch.zeros_like(z), self._words(len(z))
                g[rows] = curvature[rows] * (z[rows] - target[rows]) + self._stretch(g[rows].shape)
            else:
                g = curvature * (z - target) + self._stretch(z.shape)
            gradients.append((loudness * g).to(dtype))
        return gradients

    def _words(self, known: int) -> Tensor:
        drawn = torch.empty(WORDS_AT_ONCE).exponential_(1 / COMMON_WORDS, generator=self._generator).long()
        return drawn[drawn < known].unique()

    def _stretch(self, shape: torch.Size) -> Tensor:
        """Noise from somewhere in what was drawn at first: to draw all of it anew takes longer than a step."""
        length = shape.numel()
        begin = int(torch.randint(len(self._noise) - length, (), generator=self._generator))
        return self._noise[begin : begin + length].view(shape)

    def _normal(self, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=self._generator, dtype=torch.float64)

    def _uniform(self, shape: tuple[int, ...]) -> Tensor:
        return torch.rand(shape, generator=self._generator, dtype=torch.float64)
