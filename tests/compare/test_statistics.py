"""The statistics keep what they promise, over simulated comparisons that go through the whole summary."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from hf_winopt.compare import contenders, statistics, summary
from hf_winopt.compare.outcome import DIVERGED, FINISHED, Outcome
from hf_winopt.compare.plan import Plan, Run
from hf_winopt.compare.settings import Settings

COMPARISONS = 2000
RUNNERS = contenders.parse("adamw_torch,adamw_win", "1e-3", 1e-3)


def simulated(rng, seeds, effect, lr=1e-3):
    """The verdict on adamw_win where each seed has a difficulty of its own, shared by both, and each run its noise.

    `effect` is in standard deviations of the paired differences.
    """
    difficulty, noise = rng.normal(scale=3, size=seeds), rng.normal(size=(2, seeds)) / math.sqrt(2)
    outcomes = {}
    for row, (label, shift) in enumerate((("adamw_torch", 0.0), ("adamw_win", effect))):
        for seed in range(seeds):
            value = float(5 + difficulty[seed] + noise[row, seed] + shift)
            evaluations = ({"step": 10, "eval_loss": value + 1}, {"step": 20, "eval_loss": value})
            outcomes[Run("final", label, lr, seed + 1)] = Outcome(FINISHED, steps=20, evaluations=evaluations)
    settings = Settings(("x.py",), (), RUNNERS, seeds=seeds)
    plan = Plan(tuple(outcomes), 0, {"adamw_torch": lr, "adamw_win": lr})
    return summary.summarize(settings, plan, outcomes)["optimizers"][1]["against_baseline"]["quality"]


@pytest.mark.parametrize(("seeds", "effect"), [(3, -2.0), (5, 1.0)])
def test_intervals_cover_the_effect(seeds, effect):
    rng = np.random.default_rng(seeds)
    intervals = [simulated(rng, seeds, effect)["interval"] for _ in range(COMPARISONS)]
    covered = np.mean([interval["low"] <= effect <= interval["high"] for interval in intervals])
    assert 0.93 <= covered <= 0.97


def test_two_copies_of_one_optimizer_tie():
    rng = np.random.default_rng(1)
    words = [simulated(rng, 5, 0.0)["word"] for _ in range(COMPARISONS)]
    assert words.count("tie") >= 0.93 * COMPARISONS
    assert abs(words.count("better") - words.count("worse")) < 0.02 * COMPARISONS


def test_an_effect_of_two_standard_deviations_is_found():
    rng = np.random.default_rng(2)
    words = [simulated(rng, 5, -2.0)["word"] for _ in range(COMPARISONS)]
    assert words.count("better") >= 0.80 * COMPARISONS
    assert words.count("worse") == 0


def test_the_interval_is_the_paired_t_test():
    rng = np.random.default_rng(3)
    mine, theirs = rng.normal(size=(2, 6))
    interval = statistics.paired_interval(list(mine - theirs))
    low, high = stats.ttest_rel(mine, theirs).confidence_interval(0.95)
    assert interval.low == pytest.approx(low, rel=1e-12) and interval.high == pytest.approx(high, rel=1e-12)
    assert interval.mean == pytest.approx((mine - theirs).mean()) and interval.n == 6


def test_words():
    def word(differences, less_is_better=True, lost=(0, 0)):
        return statistics.judge(differences, less_is_better=less_is_better, lost=lost).word

    assert word([-1.0, -1.1, -0.9]) == "better" and word([-1.0, -1.1, -0.9], less_is_better=False) == "worse"
    assert word([1.0, 1.1, 0.9]) == "worse" and word([-1.0, 1.1, 0.2]) == "tie"
    assert word([-1.0, -1.1]) == "not enough runs" == word([])
    assert word([0.0] * 3) == "tie"  # the same bits
    assert word([-0.5] * 3) == "better"  # the same difference each time: no spread to doubt it by
    assert word([-1.0, -1.1], lost=(1, 0)) == "worse" and word([0.1, 0.2], lost=(0, 1)) == "better"
    assert word([-1.0, 1.1, 0.2], lost=(1, 1)) == "tie"
    assert word([], lost=(1, 0)) == "not enough runs"


def test_steps_to_a_target():
    curve = [(10, 3.0), (20, 1.0), (30, 0.5)]
    assert statistics.steps_to(curve, 2.0) == 15 and statistics.steps_to(curve, 1.0) == 20
    assert statistics.steps_to(curve, 4.0) == 10  # at the first evaluation or before
    assert statistics.steps_to(curve, 0.4) is None and statistics.steps_to([], 1.0) is None
    assert statistics.steps_to([(10, math.nan), (20, 1.0)], 2.0) == 20
    assert statistics.steps_to([(10, 3.0), (20, math.inf), (30, 1.0)], 2.0) == 20


def test_diverged_runs_count_against_whoever_diverged():
    outcomes = {
        Run("final", label, 1e-3, seed): Outcome(FINISHED, steps=9, evaluations=({"step": 9, "eval_loss": 1.0 * seed},))
        for label in ("adamw_torch", "adamw_win")
        for seed in (1, 2, 3, 4)
    }
    outcomes[Run("final", "adamw_win", 1e-3, 2)] = Outcome(DIVERGED, "loss is nan", steps=3)
    plan = Plan(tuple(outcomes), 0, {"adamw_torch": 1e-3, "adamw_win": 1e-3})
    result = summary.summarize(Settings(("x.py",), (), RUNNERS, seeds=4), plan, outcomes)
    row = result["optimizers"][1]
    assert row["against_baseline"]["quality"]["word"] == "worse" and row["diverged"] == 1
    assert row["final"]["seeds"] == {"1": 1.0, "2": "diverged", "3": 3.0, "4": 4.0}
    assert result["runs"]["diverged"] == 1 and result["mishaps"][0]["reason"] == "loss is nan"
