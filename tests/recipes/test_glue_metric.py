"""The metric script agrees with GLUE's definitions, written out here a second time, and needs no network."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import evaluate
import numpy as np
import pytest
import scipy.stats

from recipes.glue.tasks import TASKS

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = str(ROOT / "recipes" / "glue" / "glue_metric.py")


def score(task: str, predictions: list[float], references: list[float]) -> dict[str, float]:
    metric = evaluate.load(SCRIPT, task, keep_in_memory=True)
    return metric.compute(predictions=predictions, references=references)


def counts(predicted: np.ndarray, true: np.ndarray) -> tuple[float, float, float, float]:
    """True and false positives, false and true negatives."""
    pairs = list(zip(predicted.tolist(), true.tolist(), strict=True))
    return tuple(float(pairs.count(pair)) for pair in ((1, 1), (1, 0), (0, 1), (0, 0)))


@pytest.fixture(params=range(5))
def binary(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(request.param)
    true = rng.integers(0, 2, 60)
    return np.where(rng.random(60) < 0.3, 1 - true, true), true


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_metrics_are_those_of_the_task_table(task):
    values = [0, 1, 1, 0]
    scores = score(task.name, values, values)
    assert tuple(scores) == task.metrics
    assert all(value == pytest.approx(1.0) for value in scores.values())


def test_matthews_correlation(binary):
    tp, fp, fn, tn = counts(*binary)
    expected = (tp * tn - fp * fn) / math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert score("cola", *binary)["matthews_correlation"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("task", ["mrpc", "qqp"])
def test_accuracy_and_f1(binary, task):
    tp, fp, fn, tn = counts(*binary)
    precision, recall = tp / (tp + fp), tp / (tp + fn)
    expected = {"accuracy": (tp + tn) / 60, "f1": 2 * precision * recall / (precision + recall)}
    assert score(task, *binary) == pytest.approx(expected, abs=1e-12)


def test_accuracy_of_three_classes():
    assert score("mnli", [0, 1, 2, 2], [0, 2, 2, 1]) == {"accuracy": 0.5}


def test_correlations_with_ties():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 11, 50) / 2  # half points, as people rated: many ties
    predicted = np.round(true + rng.normal(size=50), 1)
    expected = {
        "pearson": scipy.stats.pearsonr(predicted, true)[0],
        "spearmanr": scipy.stats.spearmanr(predicted, true)[0],
    }
    assert score("stsb", predicted, true) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("constant", [0, 1])
def test_a_constant_prediction(constant):
    true = [0, 1, 1, 0, 1]
    predicted = [constant] * 5
    assert score("cola", predicted, true) == {"matthews_correlation": 0.0}
    f1 = 2 * 3 / (5 + 3) if constant else 0.0  # without a predicted positive there is no precision: 0
    assert score("mrpc", predicted, true)["f1"] == pytest.approx(f1)
    assert all(math.isnan(value) for value in score("stsb", [2.5] * 5, true).values())


def test_constant_references():
    assert score("cola", [0, 1], [1, 1]) == {"matthews_correlation": 0.0}
    assert score("mrpc", [0, 0], [0, 0]) == {"accuracy": 1.0, "f1": 0.0}


def test_unknown_task():
    with pytest.raises(KeyError, match="snli"):
        score("snli", [0], [0])


def test_fresh_home_without_network(tmp_path):
    code = f"import evaluate; print(evaluate.load({SCRIPT!r}, 'cola').compute(predictions=[0, 1], references=[0, 1]))"
    home, folder = tmp_path / "home", tmp_path / "folder"
    folder.mkdir()
    environ = os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "HOME": str(home)}
    run = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environ, capture_output=True, text=True)
    assert "{'matthews_correlation': 1.0}" in run.stdout, run.stderr
    assert not list(folder.iterdir())
