"""GLUE's metrics as a module of `evaluate`, from their definitions and without scikit-learn.

    metric = evaluate.load("recipes/glue/glue_metric.py", "mrpc")
    metric.compute(predictions=[0, 1], references=[0, 0])

`evaluate` copies this one file to its cache and reads its imports line by line: each stands on its own line, and
none is of this repository.
"""

import datasets
import evaluate
import numpy as np

_DESCRIPTION = "The metrics of the nine GLUE tasks: one task per configuration."
_INPUTS = """
predictions: a class id (stsb: a score) for each example.
references: the label (stsb: the target score) of each example.
"""


def accuracy(predicted: np.ndarray, true: np.ndarray) -> float:
    return float(np.mean(predicted == true))


def f1(predicted: np.ndarray, true: np.ndarray) -> float:
    """Of the positive class, 1; zero where nothing is positive."""
    hits = np.sum((predicted == 1) & (true == 1))
    positives = np.sum(predicted == 1) + np.sum(true == 1)
    return float(2 * hits / positives) if positives else 0.0


def matthews_correlation(predicted: np.ndarray, true: np.ndarray) -> float:
    """The correlation of two binary variables; zero where one of them is constant."""
    predicted, true = predicted == 1, true == 1
    spread = predicted.std() * true.std()
    return float(np.mean((predicted - predicted.mean()) * (true - true.mean())) / spread) if spread else 0.0


def pearson(predicted: np.ndarray, true: np.ndarray) -> float:
    """Undefined, nan, where one side is constant."""
    a, b = predicted - predicted.mean(), true - true.mean()
    if np.ptp(predicted) == 0 or np.ptp(true) == 0:
        return float("nan")
    return float(np.clip((a / np.linalg.norm(a)) @ (b / np.linalg.norm(b)), -1.0, 1.0))


def spearmanr(predicted: np.ndarray, true: np.ndarray) -> float:
    return pearson(_ranks(predicted), _ranks(true))


def _ranks(values: np.ndarray) -> np.ndarray:
    """From 1 on; equal values share the mean of their ranks."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[group]


METRICS = {
    "cola": (matthews_correlation,),
    "sst2": (accuracy,),
    "mrpc": (accuracy, f1),
    "stsb": (pearson, spearmanr),
    "qqp": (accuracy, f1),
    "mnli": (accuracy,),
    "qnli": (accuracy,),
    "rte": (accuracy,),
    "wnli": (accuracy,),
}


class Glue(evaluate.Metric):
    """The configuration name is the task."""

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in METRICS:
            raise KeyError(f"unknown GLUE task {self.config_name!r}: give one of {', '.join(METRICS)}")
        number = datasets.Value("float64" if self.config_name == "stsb" else "int64")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(predictions=number, references=number),
        )

    def _compute(self, predictions: list[float], references: list[float]) -> dict[str, float]:
        predicted, true = np.asarray(predictions), np.asarray(references)
        return {metric.__name__: metric(predicted, true) for metric in METRICS[self.config_name]}
