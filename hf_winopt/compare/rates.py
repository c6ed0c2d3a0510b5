"""Grids of learning rates: where they begin, which rate is best, and how they go on when the best is at an end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

RATIO = 3.0
"""Between neighbours of a grid made here."""


def positive(text: str, where: str) -> float:
    """`text` as a learning rate above 0; `where` begins the error that says it is none."""
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 < rate < math.inf:
        raise ValueError(f"{where} {text.strip()!r} is no learning rate: a number above 0 is")
    return rate


def around(middle: float) -> tuple[float, ...]:
    """Three rates, the middle one as given."""
    return (rounded(middle / RATIO), middle, rounded(middle * RATIO))


def best(scores: Mapping[float, float]) -> float:
    """The rate with the lowest score, the lower rate of equals; NaN and infinity are worst."""
    return min(sorted(scores), key=lambda rate: (not math.isfinite(scores[rate]), scores[rate]))


def is_at_end(scores: Mapping[float, float]) -> bool:
    """Whether the best rate is the lowest or the highest, of two or more."""
    return len(scores) > 1 and best(scores) in (min(scores), max(scores))


def further(scores: Mapping[float, float]) -> float:
    """The rate with which a grid goes on: beyond the end at which the best is, otherwise nearer to the second best.

    The ratio to its neighbour is that of the last two rates there.
    """
    grid = sorted(scores)
    at = grid.index(best(scores))
    if at == 0 or (at < len(grid) - 1 and _below_is_better(scores, grid, at)):
        return rounded(grid[0] * grid[0] / grid[1])
    return rounded(grid[-1] * grid[-1] / grid[-2])


def _below_is_better(scores: Mapping[float, float], grid: Sequence[float], at: int) -> bool:
    return best({rate: scores[rate] for rate in (grid[at - 1], grid[at + 1])}) == grid[at - 1]


def rounded(rate: float) -> float:
    """To two digits, which a person can type."""
    return float(f"{rate:.1e}")
