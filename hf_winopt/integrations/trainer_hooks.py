"""What Trainer's methods do beside their own work where one of our optimizers trains: our card, and nothing private.

`create_model_card`, and with it `push_to_hub`, writes our card; so does every push of `hub_strategy`, and `save_model`
leaves the `results.json` that `hf-winopt card` can make it of. A class that has a card of its own, as TRL's trainers
have, keeps it. What is saved to be pushed is kept free of what is private (`private`).
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hf_winopt.integrations.cards import WinOptCardCallback
from hf_winopt.integrations.private import hide_in_folder, hiding
from hf_winopt.integrations.trainer_facts import is_adapter
from hf_winopt.optim import OURS

SWITCH = "HF_WINOPT_CARD"
"""The environment variable that leaves all cards to Trainer if it is 0."""

logger = logging.getLogger(__name__)


def extend(trainer_class: Any) -> None:
    """Let a Trainer that has the callback, and one of our optimizers, write our card and hide what is private."""
    create, push, save, keep = (
        getattr(trainer_class, name)
        for name in ("create_model_card", "_push_from_checkpoint", "save_model", "save_state")
    )
    signature = inspect.signature(create)

    def callback_of(trainer: Any) -> WinOptCardCallback | None:
        if type(trainer).create_model_card is not create_model_card or os.environ.get(SWITCH) == "0":
            return None
        if not trainer.is_world_process_zero():
            return None
        callbacks = trainer.callback_handler.callbacks
        return next((each for each in callbacks if isinstance(each, WinOptCardCallback)), None)

    def writer(trainer: Any) -> WinOptCardCallback | None:
        return callback_of(trainer) if has_ours(trainer) and trainer.state.global_step > 0 else None

    @functools.wraps(create)
    def create_model_card(self: Any, *args: Any, **kwargs: Any) -> None:
        if (callback := callback_of(self)) is not None and callback.keeps(self):
            return
        if (callback := writer(self)) is None:
            create(self, *args, **kwargs)
            return
        said = dict(signature.bind(self, *args, **kwargs).arguments)
        callback.said |= {name: value for name, value in said.items() if name != "self" and value is not None}
        if not _survives(functools.partial(callback.write, self, ask_hub=True)):
            create(self, *args, **kwargs)

    @functools.wraps(push)
    def _push_from_checkpoint(self: Any, checkpoint_folder: str) -> None:
        # Only the main process has a `push_in_progress`.
        if self.is_world_process_zero() and self.args.hub_strategy != "end" and has_ours(self):
            checkpoint, output = Path(checkpoint_folder), Path(self.args.output_dir)
            _survives(functools.partial(hide_in_folder, checkpoint))
            _survives(functools.partial(hide_in_folder, output))
            # Trainer takes along the weights, and forgets the code that they need.
            _survives(functools.partial(_copy_code, checkpoint, output))
            under_way = self.push_in_progress is not None and not self.push_in_progress.is_done()
            if (not under_way or self.args.hub_always_push) and (callback := writer(self)) is not None:
                _survives(functools.partial(callback.write, self))
        with hiding(has_ours(self)):
            push(self, checkpoint_folder)

    @functools.wraps(save)
    def save_model(self: Any, output_dir: str | None = None, _internal_call: bool = False) -> None:
        here = output_dir is None or Path(output_dir).resolve() == Path(self.args.output_dir).resolve()
        callback = writer(self) if here and not _internal_call else None
        if callback is not None:  # before, since Trainer saves to push if it is to push
            _survives(functools.partial(callback.write, self, card=False))
        with hiding(has_ours(self)):
            save(self, output_dir, _internal_call)
        if callback is not None and is_adapter(self.accelerator.unwrap_model(self.model)):
            _survives(functools.partial(callback.write, self))  # over the card that PEFT leaves

    @functools.wraps(keep)
    def save_state(self: Any) -> None:
        keep(self)
        if has_ours(self) and self.is_world_process_zero():
            _survives(functools.partial(hide_in_folder, Path(self.args.output_dir)))

    for replacement in (create_model_card, _push_from_checkpoint, save_model, save_state):
        setattr(trainer_class, replacement.__name__, replacement)


def has_ours(trainer: Any) -> bool:
    """Whether a Trainer has one of our optimizers, by whatever way it got it."""
    optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)  # out of Accelerate's wrapper
    return isinstance(optimizer, OURS)


def _copy_code(checkpoint: Path, output: Path) -> None:
    for file in checkpoint.glob("*.py"):
        shutil.copy(file, output / file.name)


def _survives(work: Callable[[], None]) -> bool:
    """Whether it was done: whatever may be wrong with a card, a training must not die of it."""
    try:
        work()
    except Exception:
        logger.warning("the model card, or what goes with it, could not be written", exc_info=True)
        return False
    return True
