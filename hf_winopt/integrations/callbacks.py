"""What needs to know how long training is."""

from __future__ import annotations

from typing import Any

from transformers.trainer_callback import TrainerCallback, TrainerControl, TrainerState
from transformers.training_args import TrainingArguments

from hf_winopt.integrations import names
from hf_winopt.integrations.options import agr_stop_ratio


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
