"""What a classifier scores: accuracy, and the mean cross-entropy of an image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import EvalPrediction

from recipes.vit.objective import Objective


def per_image(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Of logits (N, classes): whether each class is right, 0 or 1, and its cross-entropy; float32, (N,)."""
    return (logits.argmax(-1) == labels).float(), F.cross_entropy(logits.float(), labels, reduction="none")


def means(prediction: EvalPrediction) -> dict[str, float]:
    """Of what `per_image` gave, as Trainer has it, whose own loss counts a smaller last batch like any other."""
    right, losses = prediction.predictions
    return {"accuracy": float(right.mean()), "loss": float(losses.mean())}


@torch.no_grad()
def score(
    objective: Objective, model: nn.Module, batches: Iterable[Mapping[str, Any]], accelerator: Accelerator
) -> dict[str, float]:
    """Over all that the processes read.

    Args:
        objective: of the model.
        model: in evaluation mode.
        batches: of a prepared loader, this process' share of the set.
        accelerator: that gathers what the processes found.
    """
    found = []
    for batch in batches:
        with accelerator.autocast():
            _, logits = objective(model, batch)
        found.append(accelerator.gather_for_metrics(per_image(logits, batch["labels"])))
    right, losses = (torch.cat(parts).cpu().numpy() for parts in zip(*found, strict=True))
    return means(EvalPrediction(predictions=(right, losses), label_ids=None))
