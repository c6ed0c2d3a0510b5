"""What an optimizer hears from Trainer, which alone knows how long training is, and what Trainer hears from it."""

from __future__ import annotations

import logging
from typing import Any

from transformers.trainer_callback import TrainerCallback, TrainerControl, TrainerState
from transformers.training_args import TrainingArguments

from hf_winopt.integrations import names
from hf_winopt.integrations.options import agr_stop_ratio
from hf_winopt.optim.base import RuleOptimizer

logger = logging.getLogger(__name__)


class AGRStopCallback(TrainerCallback):
    """Turns `agr_stop_ratio` into the optimizer's `agr_steps` once Trainer knows the number of steps.

    Without effect for other optimizers, and where no ratio was given.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        stop_agr(args, kwargs["optimizer"], state.max_steps)


def stop_agr(args: TrainingArguments, optimizer: Any, steps: int) -> None:
    """Turn `agr_stop_ratio`, if there is one, into the `agr_steps` of an optimizer that takes so many steps in all."""
    entry = names.lookup(args.optim)
    ratio = None if entry is None else agr_stop_ratio(entry, args)
    if ratio is None:
        return
    for group in optimizer.param_groups:
        if group.get("agr"):
            group["agr_steps"] = round(ratio * steps)


class WhatStaysCallback(TrainerCallback):
    """Says which numbers of a run that goes on from a checkpoint are not used: its optimizer's stay, as with torch's.

    Without effect for other optimizers, and where they are the same.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        optimizer = kwargs.get("optimizer")
        optimizer = getattr(optimizer, "optimizer", optimizer)  # out of Accelerate's wrapper
        if not isinstance(optimizer, RuleOptimizer) or state.global_step == 0:
            return
        names = {"initial_lr": "learning_rate"}
        for option, (given, stays) in optimizer.overruled.items():
            logger.warning(
                f"{names.get(option, option)} {given!r} is not used: training goes on from a checkpoint, and the "
                f"numbers of its optimizer stay, here {stays!r}"
            )


class SkippedStepsCallback(TrainerCallback):
    """Logs how many steps `skip_nonfinite` has left out, as `skipped_steps`, whenever Trainer logs its loss.

    Without effect for other optimizers, and where the option is off.
    """

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        optimizer, logs = kwargs.get("optimizer"), kwargs.get("logs")
        optimizer = getattr(optimizer, "optimizer", optimizer)  # out of Accelerate's wrapper
        if not isinstance(optimizer, RuleOptimizer) or logs is None or "loss" not in logs:
            return
        if any(group.get("skip_nonfinite") for group in optimizer.param_groups):
            logs["skipped_steps"] = optimizer.skipped_steps
            state.log_history[-1]["skipped_steps"] = logs["skipped_steps"]  # made of the logs before they came here
