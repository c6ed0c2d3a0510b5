"""A learning rate that drops at given epochs, which transformers' schedules do not have."""

from __future__ import annotations

from collections.abc import Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

FACTOR = 0.1


def with_drops(optimizer: Optimizer, epochs: Sequence[float], steps_in_epoch: int, warmup_steps: int) -> LambdaLR:
    """A tenth of the rate from each of the epochs on, after a linear warm-up.

    Args:
        optimizer: whose rates it sets.
        epochs: after how many the rate drops, 50 and 100 say.
        steps_in_epoch: of the optimizer.
        warmup_steps: 0 for none.
    """

    def factor(step: int) -> float:
        drops = sum(step >= round(epoch * steps_in_epoch) for epoch in epochs)
        return min(1.0, step / warmup_steps if warmup_steps else 1.0) * FACTOR**drops

    return LambdaLR(optimizer, factor)
