"""Trainer, but that it finds the weights of a checkpoint under whatever names they were saved."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import Trainer


class CheckpointTrainer(Trainer):
    """Loads the weights of a checkpoint as `from_pretrained` does.

    transformers 5 saves some models, ViT among them, under the names that their weights once had. Trainer itself looks
    for the present names, leaves all other weights as they happen to be, and goes on with a warning (transformers issue
    43701).
    """

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
        self._load_from_checkpoint(self.state.best_model_checkpoint)
