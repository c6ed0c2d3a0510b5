"""The nine GLUE tasks as one table: columns, labels, metrics and validation sets under the names of `nyu-mll/glue`."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from recipes.common import RecipeError


@dataclass(frozen=True)
class Task:
    """One row of the table."""

    name: str
    title: str
    columns: tuple[str, ...]
    """The text columns, one or two, in the order the model reads them."""
    labels: tuple[str, ...]
    """The classes by label id; empty for a regression."""
    metrics: tuple[str, ...]
    """As GLUE scores the task; the first one stands for the task in curves and tables."""
    validation: tuple[str, ...] = ("validation",)
    score_range: tuple[float, float] | None = None
    """The lowest and highest target of a regression."""

    @property
    def is_regression(self) -> bool:
        return not self.labels

    @property
    def num_labels(self) -> int:
        return len(self.labels) or 1

    @property
    def headline(self) -> str:
        return self.metrics[0]


_ENTAILMENT = ("entailment", "not_entailment")

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("cola", "CoLA", ("sentence",), ("unacceptable", "acceptable"), ("matthews_correlation",)),
        Task("sst2", "SST-2", ("sentence",), ("negative", "positive"), ("accuracy",)),
        Task("mrpc", "MRPC", ("sentence1", "sentence2"), ("not_equivalent", "equivalent"), ("accuracy", "f1")),
        Task("stsb", "STS-B", ("sentence1", "sentence2"), (), ("pearson", "spearmanr"), score_range=(0.0, 5.0)),
        Task("qqp", "QQP", ("question1", "question2"), ("not_duplicate", "duplicate"), ("accuracy", "f1")),
        Task(
            "mnli",
            "MNLI",
            ("premise", "hypothesis"),
            ("entailment", "neutral", "contradiction"),
            ("accuracy",),
            validation=("validation_matched", "validation_mismatched"),
        ),
        Task("qnli", "QNLI", ("question", "sentence"), _ENTAILMENT, ("accuracy",)),
        Task("rte", "RTE", ("sentence1", "sentence2"), _ENTAILMENT, ("accuracy",)),
        # WNLI counts the other way round: 1 is entailment.
        Task("wnli", "WNLI", ("sentence1", "sentence2"), _ENTAILMENT[::-1], ("accuracy",)),
    )
}


def get_task(name: str) -> Task:
    """The row called `name`, or an error that says which name was probably meant."""
    if name in TASKS:
        return TASKS[name]
    near = difflib.get_close_matches(name.lower().replace("-", "").replace("_", ""), TASKS, n=2)
    hint = f"did you mean {' or '.join(near)}?" if near else f"the tasks are {', '.join(TASKS)}."
    raise RecipeError(f"unknown GLUE task {name!r}: {hint}")
