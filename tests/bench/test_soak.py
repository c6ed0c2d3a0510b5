"""The soak sees what it looks for: drift, growth and wrong counts; and what it saw is kept."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch

from benchmarks import soak
from benchmarks.soak_problem import Problem

KEPT = Path(__file__).parents[2] / "benchmarks" / "results" / "soak.json"


def test_an_engine_is_equal_to_itself_and_float32_is_not_float64():
    run = soak.soak("adan_win_agr", "eager", 40)
    assert [mark["step"] for mark in run["marks"]] == [2, 10, 20, 40]
    assert run["counts"] == [[soak.counted("adan_win_agr", 40)]] * 3 == [[5.0]] * 3
    for mark in run["marks"]:
        assert set(mark["engines_apart"].values()) == {0.0}
        assert 0 < mark["from_float64"]["float32"] < 1e-4 < mark["from_float64"]["bfloat16"] < 0.1
    assert run["marks"][0]["state_bytes"] == run["marks"][-1]["state_bytes"] > 0


def test_gradients_come_again_from_the_same_seed_alone_and_never_rest():
    (one, same, other), at = (Problem((torch.float32,), seed) for seed in (0, 0, 1)), None
    at = [z.double() for z in one.start]
    first, again, different = (problem.gradients(at) for problem in (one, same, other))
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert not any(torch.equal(a, b) for a, b in zip(first, different))
    assert not any(torch.equal(a, b) for a, b in zip(first, one.gradients(at)))


@pytest.fixture
def kept():
    return json.loads(KEPT.read_text(encoding="utf-8"))["rows"]


def test_what_was_seen_is_as_it_should_be(kept):
    for row in kept:
        assert row["compile"]["steps"] == soak.STEPS["compile"] and soak.broken(row) == []


@pytest.mark.parametrize(
    ("harm", "complaint"),
    [
        (lambda run: run["counts"][1].append(3.0), "counts of steps"),
        (lambda run: run["marks"][2]["engines_apart"].update(float32=1.0), "too far apart at step 10000 in float32"),
        (lambda run: run["marks"][-1].update(objects=10**9), "objects grew"),
        (lambda run: run["marks"][-1].update(rss=10**12), "rss grew"),
    ],
)
def test_what_should_not_be_is_said(kept, harm, complaint):
    row = copy.deepcopy(kept[0])
    harm(row["compile"])
    (said,) = soak.broken(row)
    assert complaint in said
