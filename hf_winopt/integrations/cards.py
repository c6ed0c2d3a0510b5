"""Our model card in place of Trainer's own: the callback by which a Trainer has it, and what it writes."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

from huggingface_hub import get_token, metadata_load
from transformers.trainer_callback import TrainerControl, TrainerState
from transformers.training_args import TrainingArguments

from hf_winopt.files import plain, write_atomically
from hf_winopt.integrations.hub import CARD_FILE, RESULTS_FILE, TAG, WinOptModelCard
from hf_winopt.integrations.last_look import find_private, private_words
from hf_winopt.integrations.timing import StepTimer

logger = logging.getLogger(__name__)


class WinOptCardCallback(StepTimer):
    """Writes results and model card of the Trainer that it belongs to; every Trainer has one.

    `trainer.remove_callback(WinOptCardCallback)`, or `HF_WINOPT_CARD=0` in the environment, leaves the card to Trainer.
    """

    def __init__(self) -> None:
        super().__init__(synchronize=False)  # a training that nobody measures is not to be slowed down
        self.said: dict[str, Any] = {}
        self.best: dict[str, Any] | None = None
        self.finished = False
        self._begun = self._latest = 0.0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.seconds.clear()
        self.best, self.finished = None, False
        self._begun = self._latest = time.perf_counter()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        super().on_step_end(*args, **kwargs)
        self._latest = time.perf_counter()  # and not the time of the card: an interrupted training may wait for hours

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._latest, self.finished = time.perf_counter(), True
        best = state.best_model_checkpoint
        # Where it is not there Trainer keeps the last weights. To be found out now: checkpoints may be deleted later.
        if args.load_best_model_at_end and best is not None and Path(best).is_dir():
            self.best = {"step": state.best_global_step, "metric": args.metric_for_best_model}

    def write(self, trainer: Any, *, card: bool = True, ask_hub: bool = False) -> None:
        """Put `results.json` and `curves.png` into the output folder, and the card if it is wanted.

        A `results.json` that is someone else's stays, and then the card is all that is written.

        Args:
            trainer: that has taken a step.
            card: whether the card is wanted.
            ask_hub: whether the Hub may be asked for the licence of the base model.

        Raises:
            ValueError: there is something private in the results.
        """
        from hf_winopt.integrations.report import write_report
        from hf_winopt.integrations.trainer_results import results_of

        folder = Path(trainer.args.output_dir)
        wall_seconds = self._latest - self._begun
        found = results_of(
            trainer, self, wall_seconds, self.said, finished=self.finished, best=self.best, ask_hub=ask_hub
        )
        results = plain(found)
        if results["license"]:
            self.said["license"] = results["license"]
        _check(results, folder, trainer.args.hub_token)
        if _may_be_written(folder / RESULTS_FILE):
            write_report(folder, results, card=card)
            return
        logger.warning(f"{folder / RESULTS_FILE} is not of this package and stays as it is")
        if card:
            write_atomically(folder / CARD_FILE, str(WinOptModelCard.from_results(results, drawn=False)))

    def keeps(self, trainer: Any) -> bool:
        """Whether there is a card of ours that Trainer, which has not trained, knows nothing better than."""
        file = Path(trainer.args.output_dir, CARD_FILE)
        if trainer.state.global_step > 0 or not file.exists():
            return False
        return TAG in ((metadata_load(file) or {}).get("tags") or ())


def _check(results: dict[str, Any], folder: Path, token: str | None) -> None:
    """A last look, beyond what is known to be private: the command line first, since it can be done without."""
    words = private_words(folder, token or get_token())
    if results["command"] is not None and find_private(results["command"].encode(), words) is not None:
        results["command"] = None
    if (what := find_private(json.dumps(results).encode(), words)) is not None:
        raise ValueError(f"the results have {what} in them")


def _may_be_written(file: Path) -> bool:
    """Whether no results stand in the way but our own."""
    if not file.exists():
        return True
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return isinstance(found, dict) and "hf_winopt" in (found.get("versions") or {})
