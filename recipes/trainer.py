"""Trainer as the recipes need it: checkpoints that are whole or known not to be, and cards of the recipes' own."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from torch import nn
from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME

from hf_winopt.integrations.private import CHECKPOINT
from recipes.common import saving

logger = logging.getLogger(__name__)


class RecipeTrainer(Trainer):
    """Loads the weights of a checkpoint as `from_pretrained` does, and leaves the model card to the recipe.

    transformers 5 saves some models, ViT among them, under the names that their weights once had. Trainer itself looks
    for the present names, leaves all other weights as they happen to be, and goes on with a warning (transformers issue
    43701).
    """

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """With a state, by which a whole checkpoint is known, only when all processes have written the rest."""
        folder = Path(self.args.output_dir, f"{CHECKPOINT}{self.state.global_step}")
        with saving(folder):
            if self.args.should_save:  # a run that takes these steps once more writes over what it has saved before
                (folder / TRAINER_STATE_NAME).unlink(missing_ok=True)
            self.accelerator.wait_for_everyone()
            super()._save_checkpoint(*args, **kwargs)

    def _save_rng_state(self, output_dir: str) -> None:
        """The last that every process writes; the main process goes on to the state."""
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        saved = type(self.model).from_pretrained(resume_from_checkpoint)
        (self.model if model is None else model).load_state_dict(saved.state_dict())

    def _load_best_model(self, *args: Any, **kwargs: Any) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_best_model(*args, **kwargs)
            return
        best = self.state.best_model_checkpoint
        if not os.path.isdir(best):  # gone on from a checkpoint that was moved, without the best before it
            logger.warning(f"the best checkpoint, {best}, is not here: the weights stay those of the last step")
            return
        self._load_from_checkpoint(best)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """None: the recipe's is made of its results, which are there when all is done."""

    def push_report(self) -> None:
        """With `--push_to_hub`, once the recipe has written its report."""
        if self.args.push_to_hub:
            self.push_to_hub(commit_message="Results and model card")
