"""The statistics keep what they promise, over simulated comparisons that go through the whole summary."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from hf_winopt.compare import contenders, report, statistics, summary
from hf_winopt.compare.outcome import DIVERGED, FINISHED, Outcome
from hf_winopt.compare.plan import Plan, Run
from hf_winopt.compare.settings import Settings

COMPARISONS = 2000
RUNNERS = contenders.parse("adamw_torch,adamw_win", "1e-3", 1e-3)


def simulated(rng, seeds, effect, timing_noise=0.05):
    """What is said of adamw_win where each seed has a difficulty of its own, shared by both, and each run its noise.

    `effect` is in standard deviations of the paired differences.
    """
    difficulty, noise = rng.normal(scale=0.3, size=seeds), rng.normal(size=(2, seeds)) / math.sqrt(2)
    outcomes = {}
    for row, (label, shift) in enumerate((("adamw_torch", 0.0), ("adamw_win", effect))):
        for seed in range(seeds):
            end = float(50 + difficulty[seed] + noise[row, seed] + shift)
            curve = ({"step": step, "eval_loss": end + 0.1 * (100 - step)} for step in range(10, 101, 10))
            seconds = 0.1 * (1 + timing_noise * rng.normal())
            outcomes[Run("final", label, 1e-3, seed + 1)] = Outcome(
                FINISHED, steps=100, evaluations=tuple(curve), seconds_per_step=seconds
            )
    return summarized(outcomes, seeds)["optimizers"][1]["against_baseline"]


def summarized(outcomes, seeds):
    plan = Plan(tuple(outcomes), 0, {"adamw_torch": 1e-3, "adamw_win": 1e-3})
    return summary.summarize(Settings(("x.py",), (), RUNNERS, seeds=seeds), plan, outcomes)


def shares(said, what):
    words = [verdict[what]["word"] for verdict in said]
    return {word: words.count(word) / len(words) for word in ("better", "worse", "tie", "not enough runs")}


@pytest.mark.parametrize(("seeds", "effect"), [(3, -2.0), (5, 1.0)])
def test_intervals_cover_the_effect(seeds, effect):
    rng = np.random.default_rng(seeds)
    intervals = [simulated(rng, seeds, effect)["quality"]["interval"] for _ in range(COMPARISONS)]
    covered = np.mean([interval["low"] <= effect <= interval["high"] for interval in intervals])
    assert 0.93 <= covered <= 0.97


def test_two_copies_of_one_optimizer_tie():
    rng = np.random.default_rng(1)
    said = [simulated(rng, 5, 0.0) for _ in range(COMPARISONS)]
    quality = shares(said, "quality")
    assert quality["tie"] >= 0.93 and abs(quality["better"] - quality["worse"]) < 0.02
    for what in ("steps", "time"):  # where few enough runs reach the target, nothing is said
        share = shares(said, what)
        assert share["better"] + share["worse"] <= 0.07


def test_an_effect_of_two_standard_deviations_is_found():
    rng = np.random.default_rng(2)
    said = [simulated(rng, 5, -2.0) for _ in range(COMPARISONS)]
    assert shares(said, "quality")["better"] >= 0.80
    assert all(shares(said, what)["worse"] == 0 for what in ("quality", "steps"))


def test_the_interval_is_the_paired_t_test():
    rng = np.random.default_rng(3)
    mine, theirs = rng.normal(size=(2, 6))
    interval = statistics.paired_interval(list(mine - theirs))
    low, high = stats.ttest_rel(mine, theirs).confidence_interval(0.95)
    assert interval.low == pytest.approx(low, rel=1e-12) and interval.high == pytest.approx(high, rel=1e-12)
    assert interval.mean == pytest.approx((mine - theirs).mean()) and interval.n == 6


def test_words():
    def word(differences, less_is_better=True):
        return statistics.judge(differences, less_is_better=less_is_better).word

    assert word([-1.0, -1.1, -0.9]) == "better" and word([-1.0, -1.1, -0.9], less_is_better=False) == "worse"
    assert word([1.0, 1.1, 0.9]) == "worse" and word([-1.0, 1.1, 0.2]) == "tie"
    assert word([-1.0, -1.1]) == "not enough runs" == word([])
    assert word([0.0] * 3) == "tie"  # the same bits
    assert word([-0.5] * 5) == "not enough runs"  # one example more right each time: no spread to judge it by
    assert word([-0.5] * 6) == "better"
    alike = [(right + 1) / 1043 - right / 1043 for right in (951, 562, 786)]  # equal but for rounding
    assert word(alike) == "not enough runs"


def test_divergence_decides_where_the_counts_are_evidence():
    tie, none = statistics.Verdict("tie"), statistics.Verdict("not enough runs", None, "pairs: 0")

    def word(verdict, mine, theirs):
        return statistics.judge_divergence(verdict, mine, theirs).word

    assert word(tie, (0, 5), (0, 5)) == "tie" and word(tie, (1, 5), (0, 5)) == "tie"
    assert word(tie, (5, 6), (0, 6)) == "worse" and word(tie, (0, 6), (5, 6)) == "better"
    assert word(none, (3, 3), (0, 3)) == "worse" and word(none, (3, 3), (3, 3)) == "not enough runs"
    assert word(none, (1, 1), (0, 1)) == "not enough runs" == word(none, (2, 2), (0, 2))
    said = statistics.judge_divergence(none, (1, 3), (0, 3)).reason
    assert said == "pairs: 0; 1 of its 3 runs diverged, 0 of the baseline's 3"


def test_steps_to_a_target():
    curve = [(10, 3.0), (20, 1.0), (30, 0.5)]
    assert statistics.steps_to(curve, 2.0) == 15 and statistics.steps_to(curve, 1.0) == 20
    assert statistics.steps_to(curve, 4.0) == 10  # at the first evaluation or before
    assert statistics.steps_to(curve, 0.4) is None and statistics.steps_to([], 1.0) is None
    assert statistics.steps_to([(10, math.nan), (20, 1.0)], 2.0) == 20
    assert statistics.steps_to([(10, 3.0), (20, math.inf), (30, 1.0)], 2.0) == 20


def finished(end, first=None, seconds=0.1):
    """A run that falls in a straight line to `end` at step 100."""
    first = end + 1 if first is None else first
    evaluations = ({"step": 50, "eval_loss": (first + end) / 2}, {"step": 100, "eval_loss": end})
    return Outcome(FINISHED, steps=100, evaluations=evaluations, seconds_per_step=seconds)


def runs(label, *outcomes):
    return {Run("final", label, 1e-3, seed): outcome for seed, outcome in enumerate(outcomes, start=1)}


def test_a_diverged_run_is_counted_and_said():
    diverged = Outcome(DIVERGED, "loss is nan", steps=3, seconds_per_step=0.1)
    outcomes = runs("adamw_torch", *map(finished, (1.0, 2.0, 3.0, 4.0)))
    outcomes |= runs("adamw_win", finished(1.1), diverged, finished(2.9), finished(4.0))
    result = summarized(outcomes, 4)
    row = result["optimizers"][1]
    assert row["against_baseline"]["quality"]["word"] == "tie" and row["diverged"] == 1
    assert row["against_baseline"]["quality"]["reason"] == "1 of its 4 runs diverged, 0 of the baseline's 4"
    assert row["final"]["seeds"] == {"1": 1.1, "2": "diverged", "3": 2.9, "4": 4.0}
    assert result["runs"]["diverged"] == 1 and result["mishaps"][0]["reason"] == "loss is nan"
    assert result["target"] == 2.5 and row["steps_to_target"]["seeds"][2] is None


def test_never_reaching_the_target_is_never_better_however_cheap_a_step_is():
    outcomes = runs("adamw_torch", *map(finished, (1.0, 1.1, 0.9, 1.05, 0.95)))
    cheap = [finished(end, seconds=0.01) for end in (1.3, 1.01, 1.2, 1.25, 1.1)]
    row = summarized(outcomes | runs("adamw_win", *cheap), 5)["optimizers"][1]
    assert row["steps_to_target"]["reached"] == 0
    assert row["against_baseline"]["time"]["word"] in ("worse", "not enough runs")

    outcomes = runs("adamw_torch", *map(finished, (0.9, 0.8, 0.9, 1.0, 1.4)))
    row = summarized(outcomes | runs("adamw_win", *map(finished, (1.01, 1.01, 1.03, 1.01, 1.01))), 5)["optimizers"][1]
    assert row["against_baseline"]["quality"]["word"] == "tie"
    for what in ("steps", "time"):
        assert row["against_baseline"][what]["word"] == "not enough runs"
        assert row["against_baseline"][what]["reason"] == "5 of its 5 runs did not reach the target"


def said_of(outcomes):
    return report.write(summarized(outcomes, 6))


def test_what_divergence_decides_is_not_given_a_difference():
    diverged = Outcome(DIVERGED, "loss is nan", steps=3, seconds_per_step=0.1)
    outcomes = runs("adamw_torch", *map(finished, (1.0, 1.1, 0.9, 1.0, 1.1, 0.9)))
    some = runs("adamw_win", finished(0.5), finished(0.61), finished(0.4), diverged, diverged, diverged)
    assert "**adamw_win**: better at equal steps (by 0.497, 3 pairs; 3 of its 6 runs diverged" in said_of(
        outcomes | some
    )
    most = runs("adamw_win", finished(0.5), *[diverged] * 5)
    assert "**adamw_win**: worse at equal steps (5 of its 6 runs diverged, 0 of the" in said_of(outcomes | most)


def test_an_evaluation_before_the_end_is_said():
    early = [replace(finished(end), steps=120) for end in (1.0, 1.1, 0.9)]
    text = said_of(runs("adamw_torch", *early) | runs("adamw_win", *early))
    assert "All at 120 steps, **judged by their last evaluation, at step 100**" in text


def test_whoever_has_no_result_is_neither_better_nor_worse():
    outcomes = runs("adamw_torch", *map(finished, (1.0, 1.1, 0.9)))
    plan = Plan(tuple(outcomes), 0, {"adamw_torch": 1e-3})  # no rate of adamw_win worked
    result = summary.summarize(Settings(("x.py",), (), RUNNERS), plan, outcomes)
    assert result["optimizers"][1]["against_baseline"]["quality"]["word"] == "no result"
    assert "**adamw_win**: no learning rate worked" in report.write(result | {"pictures": []})
    begun = summary.summarize(Settings(("x.py",), (), RUNNERS), Plan((), 6, {}), {})
    assert report.write(begun).count("its learning rate is not chosen") == 2


def test_a_baseline_that_diverges_is_not_chosen():
    several = contenders.parse("adamw_torch_fused,adamw_torch,adan", "1e-3", 1e-3)
    nan = Outcome(DIVERGED, "loss is nan")
    outcomes = runs("adamw_torch_fused", nan, finished(0.5), nan)
    outcomes |= runs("adamw_torch", *map(finished, (1.0, 1.1, 0.9))) | runs("adan", *map(finished, (1.5, 1.7, 1.4)))
    plan = Plan(tuple(outcomes), 0, {contender.label: 1e-3 for contender in several})
    result = summary.summarize(Settings(("x.py",), (), several), plan, outcomes)
    assert result["baseline"] == "adamw_torch"
    assert result["optimizers"][2]["against_baseline"]["quality"]["word"] == "worse"
