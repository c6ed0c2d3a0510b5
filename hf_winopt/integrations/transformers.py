"""Trainer by name: `TrainingArguments(optim="adamw_win")`.

Hooks that run when (and only if) the module in question is imported:

- `transformers.training_args`: the names become members of `OptimizerNames`, so that `TrainingArguments`, its
  subclasses, `HfArgumentParser` and `set_optimizer` accept them;
- `transformers.trainer`: `Trainer.get_optimizer_cls_and_kwargs`, a public static method of 4.57 and of 5.x,
  answers for them, `DEFAULT_CALLBACKS` gains those of `callbacks` and the one of `cards`, and Trainer's methods gain
  `trainer_hooks`;
- what Trainer pushes is kept free of what is private (`private`).
"""

from __future__ import annotations

import functools
import logging
from types import ModuleType
from typing import Any

from hf_winopt.integrations import names, private, resuming
from hf_winopt.integrations.names import register_optimizer
from hf_winopt.integrations.on_import import when_imported
from hf_winopt.integrations.options import optimizer_kwargs, typed_options

__all__ = ["install", "register_optimizer"]

logger = logging.getLogger(__name__)


@functools.cache  # once a process is enough
def install() -> None:
    """Let `transformers` accept the names of `hf-winopt list`, without importing it. May be repeated."""
    when_imported("transformers.training_args", lambda module: names.publish(module.OptimizerNames))
    when_imported("transformers.training_args", private.hide_in_arguments)
    when_imported("transformers.trainer_callback", resuming.find_the_best_again)
    when_imported("transformers.trainer", _extend_trainer)


def _extend_trainer(module: ModuleType) -> None:
    from hf_winopt.integrations import trainer_hooks
    from hf_winopt.integrations.callbacks import AGRStopCallback, SkippedStepsCallback
    from hf_winopt.integrations.cards import WinOptCardCallback

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
    module.DEFAULT_CALLBACKS.extend((AGRStopCallback, SkippedStepsCallback, WinOptCardCallback))
