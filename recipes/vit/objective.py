"""What a classifier is trained for: targets that may be shared between classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from recipes.vit.augment import Augment

LOSSES = ("ce", "bce")


@dataclass(frozen=True)
class Objective:
    """From a batch of `Images` to its loss: augmented if it has random numbers for that, as training batches have.

    Args:
        augment: of training batches.
        classes: number of them.
        kind, smoothing: of the training loss, as `loss` takes them; evaluations have plain cross-entropy.
    """

    augment: Augment
    classes: int
    kind: str = "ce"
    smoothing: float = 0.0

    def __call__(self, model: nn.Module, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """The loss, a scalar, and the logits, (N, classes)."""
        images, labels = batch["pixel_values"], batch["labels"]
        if "noise" not in batch:
            logits = model(pixel_values=self.augment.plain(images)).logits
            return F.cross_entropy(logits.float(), labels), logits
        pixel_values, targets = self.augment(images, labels, batch["noise"], self.classes)
        logits = model(pixel_values=pixel_values).logits
        return loss(logits, targets, self.kind, self.smoothing), logits


def loss(logits: Tensor, targets: Tensor, kind: str, smoothing: float) -> Tensor:
    """The mean over a batch, a scalar.

    Args:
        logits: (N, classes).
        targets: (N, classes), each row with the sum 1.
        kind: `ce`, cross-entropy; or `bce`, binary cross-entropy: for each class by itself whether it is there, the
            mean over the classes.
        smoothing: share of a target that is spread evenly over all classes.
    """
    logits = logits.float()
    if kind == "ce":
        return F.cross_entropy(logits, targets, label_smoothing=smoothing)
    targets = targets * (1 - smoothing) + smoothing / targets.shape[1]
    return F.binary_cross_entropy_with_logits(logits, targets)
