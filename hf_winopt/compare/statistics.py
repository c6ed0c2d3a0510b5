"""Is one optimizer better than another? Paired differences, their t interval, and the word for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
FEWEST = 3
"""Pairs below which nothing is said."""

FEWEST_ALIKE = 6
"""Pairs below which differences that are all the same, and not zero, say nothing: by chance one sign in 2 ** 5."""

ROUNDING = 1e-9
"""Differences that spread less than this share of their mean are the same but for rounding."""

BETTER, WORSE, TIE, NOT_ENOUGH, NO_RESULT = "better", "worse", "tie", "not enough runs", "no result"


@dataclass(frozen=True)
class Interval:
    """A mean of paired differences with its confidence interval."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Verdict:
    """A word and what it rests on.

    Args:
        word: "better", "worse", "tie", "not enough runs" or "no result".
        interval: of the differences of the runs that finished; None for fewer than two.
        reason: in a few words, where the interval alone does not say it.
        by_divergence: the runs that diverged decided, and not the interval.
    """

    word: str
    interval: Interval | None = None
    reason: str = ""
    by_divergence: bool = False


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
    if error <= ROUNDING * abs(mean):
        return Interval(mean, mean, mean, n)
    low, high = stats.t.interval(confidence, n - 1, loc=mean, scale=error)
    return Interval(mean, float(low), float(high), n)


def judge(differences: Sequence[float], *, less_is_better: bool) -> Verdict:
    """The verdict on one optimizer against another.

    Args:
        differences: of the seeds that both finished, this one's value minus the other's.
        less_is_better: in the values.
    """
    interval = paired_interval(differences)
    if interval is None or interval.n < FEWEST:
        return Verdict(NOT_ENOUGH, interval, f"pairs: {len(differences)}; {FEWEST} are the fewest that say anything")
    if interval.low <= 0 <= interval.high:
        return Verdict(TIE, interval)
    if interval.low == interval.high and interval.n < FEWEST_ALIKE:
        return Verdict(NOT_ENOUGH, interval, f"the same difference in all {interval.n} pairs: no spread to judge it by")
    return Verdict(BETTER if (interval.high < 0) == less_is_better else WORSE, interval)


def judge_divergence(verdict: Verdict, mine: tuple[int, int], theirs: tuple[int, int]) -> Verdict:
    """The verdict with what divergence adds to it: the runs that diverged, of those that did or finished.

    It decides where the counts by themselves are evidence (Fisher's exact test, or all of one and none of the other);
    otherwise it is mentioned.
    """
    if not mine[0] and not theirs[0]:
        return verdict
    from scipy import stats

    said = f"{mine[0]} of its {mine[1]} runs diverged, {theirs[0]} of the baseline's {theirs[1]}"
    table = [[lost, runs - lost] for lost, runs in (mine, theirs)]
    enough = min(mine[1], theirs[1]) >= FEWEST
    all_and_none = enough and {mine[0] / mine[1], theirs[0] / theirs[1]} == {0.0, 1.0}
    if all_and_none or stats.fisher_exact(table).pvalue < 1 - CONFIDENCE:
        word = WORSE if mine[0] / mine[1] > theirs[0] / theirs[1] else BETTER
        return Verdict(word, verdict.interval, said, by_divergence=True)
    return Verdict(verdict.word, verdict.interval, "; ".join(filter(None, (verdict.reason, said))))


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
