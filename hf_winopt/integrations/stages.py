"""The staged learning rate of the AdamW paper as a Trainer schedule: `--lr_scheduler_type staged`.

"Towards Understanding Convergence and Generalization of AdamW" (2024), Algorithm 2: each stage halves the distance to
the minimum that is aimed at. For that it takes half the learning rate and twice as many steps as the one before; within
a stage the rate is constant, or falls with the root of the steps taken in it.
"""

from __future__ import annotations

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from hf_winopt.integrations.names import add_member

NAME = "staged"
WITHIN = ("constant", "inverse_sqrt")


def stage_factor(step: int, steps: int, stages: int = 4, within: str = "constant") -> float:
    """What the learning rate of a step is multiplied by.

    Args:
        step: how many steps were taken before it.
        steps: of the whole training; what goes beyond belongs to the last stage.
        stages: how many there are; of the steps the last has about half, the one before a quarter.
        within: "constant", or "inverse_sqrt": `1 / sqrt(i)` at the i-th step of a stage.
    """
    ends = [round(steps * (2 ** (k + 1) - 1) / (2**stages - 1)) for k in range(stages)]
    stage = min(sum(end <= step for end in ends), stages - 1)
    since = step - (ends[stage - 1] if stage else 0)
    return 0.5**stage / (math.sqrt(since + 1) if within == "inverse_sqrt" else 1.0)


def get_staged_schedule(
    optimizer: Optimizer,
    num_warmup_steps: int,
    num_training_steps: int,
    stages: int = 4,
    within: str = "constant",
    last_epoch: int = -1,
) -> LambdaLR:
    """The schedule of Algorithm 2, after a linear warm-up.

    With Trainer: `--lr_scheduler_type staged --lr_scheduler_kwargs '{"stages": 5, "within": "inverse_sqrt"}'`.

    Args:
        optimizer: whose groups' learning rates are those of the first stage.
        num_warmup_steps: of the warm-up, before the first stage.
        num_training_steps: in all, the warm-up too.
        stages: at least 1; each halves the rate and has twice the steps of the one before.
        within: "constant" or "inverse_sqrt".
        last_epoch: how many steps were taken before, less one; as for every schedule of torch.

    Raises:
        ValueError: an argument out of range, named with its value.
    """
    if not isinstance(stages, int) or isinstance(stages, bool) or stages < 1:
        raise ValueError(f"stages must be a whole number >= 1; got {stages!r}")
    if within not in WITHIN:
        raise ValueError(f"within must be one of {', '.join(map(repr, WITHIN))}; got {within!r}")

    def factor(step: int) -> float:
        if step < num_warmup_steps:
            return step / num_warmup_steps
        return stage_factor(step - num_warmup_steps, num_training_steps - num_warmup_steps, stages, within)

    return LambdaLR(optimizer, factor, last_epoch)


def publish(kinds: Any) -> None:
    """Add the name to `SchedulerType`."""
    if NAME not in kinds._value2member_map_:
        add_member(kinds, NAME)


def offer(module: Any) -> None:
    """Let `transformers.optimization.get_scheduler` find the schedule by its name."""
    module.TYPE_TO_SCHEDULER_FUNCTION.setdefault(module.SchedulerType(NAME), get_staged_schedule)
