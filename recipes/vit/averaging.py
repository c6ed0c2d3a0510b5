"""A moving average of the weights, which is what is evaluated and saved where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from recipes.common import RecipeError

FILE = "averaged_weights.pt"


class Averaging:
    """`average = decay * average + (1 - decay) * weights` after each step; does nothing with a decay of 0.

    Buffers, such as a batch norm's statistics, are those of the model.

    Args:
        model: as it is trained, without wrappers; its weights are averaged from now on.
        decay: 0.9999 say, for long runs.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = model
        self.averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay)) if decay else None

    def update(self) -> None:
        """After a step."""
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averaged weights, and afterwards its own again."""
        if self.averaged is None:
            yield
            return
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        assert self.averaged is not None
        for own, mean in zip(self.model.parameters(), self.averaged.module.parameters()):
            kept = own.clone()
            own.copy_(mean)
            mean.copy_(kept)

    def save(self, folder: Path) -> None:
        """Into a checkpoint."""
        if self.averaged is not None:
            torch.save(self.averaged.state_dict(), folder / FILE)

    def load(self, folder: Path) -> None:
        """From a checkpoint.

        Raises:
            RecipeError: it has none, and there should be one.
        """
        if self.averaged is None:
            return
        if not (folder / FILE).is_file():
            raise RecipeError(f"--ema_decay: {folder} was trained without one: leave it out")
        self.averaged.load_state_dict(torch.load(folder / FILE, map_location="cpu", weights_only=True))
