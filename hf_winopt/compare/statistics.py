"""Is one optimizer better than another? Paired differences, their t interval, and the word for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
FEWEST = 3
"""Pairs below which nothing is said."""

BETTER, WORSE, TIE, NOT_ENOUGH = "better", "worse", "tie", "not enough runs"


@dataclass(frozen=True)
class Interval:
    """A mean of paired differences with its confidence interval."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def half_width(self) -> float:
        """What was too small to be seen."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Verdict:
    """A word, what it rests on, and in a few words why, where the interval alone does not say it."""

    word: str
    interval: Interval | None = None
    reason: str = ""


def paired_interval(differences: Sequence[float], confidence: float = CONFIDENCE) -> Interval | None:
    """The mean of paired differences and its t interval; None for fewer than two.

    The differences are taken for a sample of a normal distribution.
    """
    from scipy import stats  # with its own 0.2 s, only where a verdict is asked for

    n = len(differences)
    if n < 2:
        return None
    mean = math.fsum(differences) / n
    error = float(stats.sem(differences))
    if error == 0:
        return Interval(mean, mean, mean, n)
    low, high = stats.t.interval(confidence, n - 1, loc=mean, scale=error)
    return Interval(mean, float(low), float(high), n)


def judge(differences: Sequence[float], *, less_is_better: bool, lost: tuple[int, int] = (0, 0)) -> Verdict:
    """The verdict on one optimizer against another.

    Args:
        differences: of the seeds that both finished, this one's value minus the other's.
        less_is_better: in the values.
        lost: how many runs diverged, of this one and of the other. More than the other's is worse, fewer is better,
            whatever the runs that did not diverge say.
    """
    interval = paired_interval(differences)
    mine, theirs = lost
    if mine != theirs and max(mine, theirs) + len(differences) >= FEWEST:
        word = WORSE if mine > theirs else BETTER
        return Verdict(word, interval, f"{mine} of its runs diverged, {theirs} of the baseline's")
    if interval is None or interval.n < FEWEST:
        return Verdict(NOT_ENOUGH, interval, f"{len(differences)} pairs, and {FEWEST} are the fewest that say anything")
    if interval.low <= 0 <= interval.high:
        return Verdict(TIE, interval)
    return Verdict(BETTER if (interval.high < 0) == less_is_better else WORSE, interval)


def steps_to(curve: Sequence[tuple[int, float]], target: float) -> float | None:
    """The step at which a curve of scores (less is better) first meets the target; None if it never does.

    Between two evaluations the curve is a straight line. A target that the first evaluation meets already was
    reached at that step at the latest.
    """
    before: tuple[int, float] | None = None
    for step, score in curve:
        if score <= target:
            if before is None or not before[1] > score:
                return float(step)
            share = (before[1] - target) / (before[1] - score)
            return before[0] + share * (step - before[0])
        before = (step, score) if math.isfinite(score) else before
    return None


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation; NaN where there are too few."""
    mean = math.fsum(values) / len(values) if values else math.nan
    if len(values) < 2:
        return mean, math.nan
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
