"""Our model card in place of Trainer's own, wherever Trainer trains with one of our optimizers.

`Trainer.create_model_card`, and with it `push_to_hub`, writes it; so does every push of `hub_strategy`, and
`Trainer.save_model` leaves the `results.json` that `hf-winopt card` can make it of. A class that has a card of its own,
as TRL's trainers have, keeps it.
"""

from __future__ import annotations

import functools
import inspect
import json
import logging
import os
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers.trainer_callback import TrainerControl, TrainerState
from transformers.training_args import TrainingArguments

from hf_winopt.files import plain, write_atomically, write_json
from hf_winopt.integrations.hub import CARD_FILE, CURVES_FILE, RESULTS_FILE, WinOptModelCard
from hf_winopt.integrations.private import hide_in_checkpoint
from hf_winopt.integrations.timing import StepTimer
from hf_winopt.optim.base import RuleOptimizer

SWITCH = "HF_WINOPT_CARD"
"""The environment variable that leaves all cards to Trainer if it is 0."""

logger = logging.getLogger(__name__)


class WinOptCardCallback(StepTimer):
    """Writes results and model card of the Trainer that it belongs to; every Trainer has one.

    `trainer.remove_callback(WinOptCardCallback)`, or `HF_WINOPT_CARD=0` in the environment, leaves the card to Trainer.
    """

    def __init__(self) -> None:
        super().__init__(synchronize=False)  # a training that nobody measures is not to be slowed down
        self.said: dict[str, Any] = {}
        self._begun = self._ended = 0.0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.seconds.clear()
        self._begun, self._ended = time.perf_counter(), 0.0

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._ended = time.perf_counter()

    def write(self, trainer: Any, *, card: bool = True) -> None:
        """Put `results.json` and `curves.png` into the output folder, and the card if it is wanted.

        A `results.json` that is someone else's stays, and then the card is all that is written.
        """
        from hf_winopt.integrations.report import draw_curves
        from hf_winopt.integrations.trainer_results import results_of

        folder = Path(trainer.args.output_dir)
        wall_seconds = (self._ended or time.perf_counter()) - self._begun
        results = plain(results_of(trainer, self, wall_seconds, self.said, finished=bool(self._ended)))
        drawn = False
        if _is_ours(folder / RESULTS_FILE):
            if find_spec("matplotlib") is not None:
                drawn = draw_curves(folder / CURVES_FILE, {results["optimizer"]["name"]: results})
            write_json(folder / RESULTS_FILE, results)
        else:
            logger.warning(f"{folder / RESULTS_FILE} is not of this package and stays as it is")
        if card:
            write_atomically(folder / CARD_FILE, str(WinOptModelCard.from_results(results, drawn=drawn)))


def extend(trainer_class: Any) -> None:
    """Let a Trainer that has the callback, and one of our optimizers, write our card."""
    create, push, save = (
        getattr(trainer_class, name) for name in ("create_model_card", "_push_from_checkpoint", "save_model")
    )
    signature = inspect.signature(create)

    def callback_of(trainer: Any) -> WinOptCardCallback | None:
        if type(trainer).create_model_card is not create_model_card or os.environ.get(SWITCH) == "0":
            return None
        if not _trains_with_ours(trainer) or not trainer.is_world_process_zero():
            return None
        callbacks = trainer.callback_handler.callbacks
        return next((each for each in callbacks if isinstance(each, WinOptCardCallback)), None)

    @functools.wraps(create)
    def create_model_card(self: Any, *args: Any, **kwargs: Any) -> None:
        callback = callback_of(self)
        if callback is None:
            create(self, *args, **kwargs)
            return
        said = dict(signature.bind(self, *args, **kwargs).arguments)
        callback.said |= {name: value for name, value in said.items() if name != "self" and value is not None}
        if not _survives(callback.write, self):
            create(self, *args, **kwargs)

    @functools.wraps(push)
    def _push_from_checkpoint(self: Any, checkpoint_folder: str) -> None:
        under_way = self.push_in_progress is not None and not self.push_in_progress.is_done()
        pushes = self.args.hub_strategy != "end" and (not under_way or self.args.hub_always_push)
        if pushes and _trains_with_ours(self) and self.is_world_process_zero():
            hide_in_checkpoint(Path(checkpoint_folder))
            if (callback := callback_of(self)) is not None:
                _survives(callback.write, self)
        push(self, checkpoint_folder)

    @functools.wraps(save)
    def save_model(self: Any, output_dir: str | None = None, _internal_call: bool = False) -> None:
        # Before it is saved, since Trainer saves to push if it is to push.
        if not _internal_call and output_dir in (None, self.args.output_dir) and (callback := callback_of(self)):
            _survives(functools.partial(callback.write, card=False), self)
        save(self, output_dir, _internal_call)

    for replacement in (create_model_card, _push_from_checkpoint, save_model):
        setattr(trainer_class, replacement.__name__, replacement)


def _trains_with_ours(trainer: Any) -> bool:
    optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)  # out of Accelerate's wrapper
    return isinstance(optimizer, RuleOptimizer) and trainer.state.global_step > 0


def _survives(write: Callable[[Any], None], trainer: Any) -> bool:
    """Whether it was written: whatever may be wrong with a card, a training must not die of it."""
    try:
        write(trainer)
    except Exception:
        logger.warning("the model card could not be written", exc_info=True)
        return False
    return True


def _is_ours(file: Path) -> bool:
    """Whether results may be put there: no file stands in the way but one of our own."""
    if not file.exists():
        return True
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return isinstance(found, dict) and "hf_winopt" in (found.get("versions") or {})
