"""Trainer by name: `TrainingArguments(optim="adamw_win")`.

Hooks that run when (and only if) the module in question is imported:

- `transformers.training_args`: the names become members of `OptimizerNames`, so that `TrainingArguments`, its
  subclasses, `HfArgumentParser` and `set_optimizer` accept them;
- `transformers.trainer`: `Trainer.get_optimizer_cls_and_kwargs`, a public static method of 4.57 and of 5.x,
  answers for them, `DEFAULT_CALLBACKS` gains those of `callbacks` and the one of `cards`, and Trainer's methods gain
  `trainer_hooks`;
- the schedule `staged` becomes one of transformers' (`stages`);
- what Trainer pushes is kept free of what is private (`private`).

What the hooks need is imported when they run: torch is there by then, and not before.
"""

from __future__ import annotations

import functools
import logging
from types import ModuleType
from typing import Any

from hf_winopt.integrations.on_import import when_imported

logger = logging.getLogger(__name__)


@functools.cache  # once a process is enough
def install() -> None:
    """Let `transformers` accept the names of `hf-winopt list`, without importing it. May be repeated."""
    when_imported("transformers.training_args", _extend_arguments)
    when_imported("transformers.trainer_callback", _extend_callbacks)
    when_imported("transformers.trainer_utils", _name_schedule)
    when_imported("transformers.optimization", _offer_schedule)
    when_imported("transformers.trainer", _extend_trainer)


def _extend_arguments(module: ModuleType) -> None:
    from hf_winopt.integrations import names, private

    names.publish(module.OptimizerNames)
    private.hide_in_arguments(module)


def _extend_callbacks(module: ModuleType) -> None:
    from hf_winopt.integrations import resuming

    resuming.find_the_best_again(module)


def _name_schedule(module: ModuleType) -> None:
    from hf_winopt.integrations import stages

    stages.publish(module.SchedulerType)


def _offer_schedule(module: ModuleType) -> None:
    from hf_winopt.integrations import stages

    stages.offer(module)


def _extend_trainer(module: ModuleType) -> None:
    from hf_winopt.integrations import names, trainer_hooks
    from hf_winopt.integrations.callbacks import AGRStopCallback, SkippedStepsCallback, WhatStaysCallback
    from hf_winopt.integrations.cards import WinOptCardCallback
    from hf_winopt.integrations.options import optimizer_kwargs
    from hf_winopt.integrations.typed import typed_options

    theirs = module.Trainer.get_optimizer_cls_and_kwargs

    @functools.wraps(theirs)
    def get_optimizer_cls_and_kwargs(args: Any, model: Any = None) -> tuple[Any, dict[str, Any]]:
        entry = names.lookup(args.optim)
        if entry is None:
            if ignored := ", ".join(typed_options(args)):
                name = getattr(args.optim, "value", args.optim)
                logger.warning(f"ignored, since optim={name} is an optimizer of transformers itself: {ignored}")
            return theirs(args, model)
        return entry.optimizer_class(model), optimizer_kwargs(entry, args)

    module.Trainer.get_optimizer_cls_and_kwargs = staticmethod(get_optimizer_cls_and_kwargs)
    trainer_hooks.extend(module.Trainer)
    module.DEFAULT_CALLBACKS.extend((AGRStopCallback, SkippedStepsCallback, WhatStaysCallback, WinOptCardCallback))
