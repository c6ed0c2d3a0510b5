"""What a model scores on a validation set: its loss and GLUE's metrics of the task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import evaluate
import torch
from accelerate import Accelerator
from torch import nn
from transformers import EvalPrediction

from recipes.glue.tasks import Task

Metrics = Callable[[EvalPrediction], dict[str, float]]


def glue_metrics(task: Task) -> Metrics:
    """GLUE's metrics of a task, as Trainer takes them."""
    metric = evaluate.load(str(Path(__file__).with_name("glue_metric.py")), task.name, keep_in_memory=True)

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        outputs = prediction.predictions
        outputs = outputs[0] if isinstance(outputs, tuple) else outputs  # some models return more than logits
        predicted = outputs.squeeze(-1) if task.is_regression else outputs.argmax(-1)
        return metric.compute(predictions=predicted, references=prediction.label_ids)

    return compute


@torch.no_grad()
def score(
    model: nn.Module,
    batches: Iterable[Mapping[str, torch.Tensor]],
    rows: int,
    metrics: Metrics,
    accelerator: Accelerator,
) -> dict[str, float]:
    """The mean loss of an example, and the metrics, over all that the processes read.

    Args:
        model: in evaluation mode.
        batches: of a prepared loader, this process' share of the set.
        rows: of a whole batch. Like Trainer, this takes the loss of a batch for that of each of its rows; the rows
            that Accelerate added so that the processes have equally many are left out of the mean.
        metrics: of the task.
        accelerator: that gathers what the processes found.
    """
    found = []
    for batch in batches:
        output = model(**batch)
        gathered = accelerator.gather_for_metrics((output.loss.repeat(rows), output.logits, batch["labels"]))
        found.append([part.float().cpu() if part.is_floating_point() else part.cpu() for part in gathered])
    losses, logits, labels = (torch.cat(parts).numpy() for parts in zip(*found, strict=True))
    return {"loss": float(losses.mean()), **metrics(EvalPrediction(predictions=logits, label_ids=labels))}
