"""What the model remembers of each row, from one batch to the next and from one process to another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recipes.common import RecipeError

Mems = tuple[Tensor, ...]


class Memory:
    """The memory of the rows that this process reads; None stands for that of a model which keeps none."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[int, Mems | None]] = {}  # first row of a batch -> its next segment and memory
        self._loaded: dict[int, tuple[int, Tensor | None]] = {}  # row -> the same, [n_layer, M, d_model]

    def read(self, model: nn.Module, batch: Mapping[str, Any]) -> Any:
        """What the model makes of a batch of `streams.collate`, after all that it read of these rows before.

        Raises:
            RecipeError: the batch does not go on where the rows' last one ended.
        """
        row, segment, input_ids = batch["row"], batch["segment"], batch["input_ids"]
        mems = None if segment == 0 else self._before(range(row, row + len(input_ids)), segment, input_ids.device)
        output = model(input_ids=input_ids, labels=batch["labels"], mems=mems)
        self._kept[row] = segment + 1, output.mems
        return output

    def save(self, folder: Path, process: int) -> None:
        """Add this process' part to a checkpoint."""
        parts = []
        for first, (following, mems) in self._kept.items():
            of_rows = [None] if mems is None else torch.stack(mems).cpu().unbind(1)
            parts += [(row, following, of_row) for row, of_row in enumerate(of_rows, start=first)]
        torch.save(parts, folder / f"memory_{process}.pt")

    def load(self, folder: Path) -> None:
        """Take what all processes saved, so that any number of them can go on."""
        self._kept, self._loaded = {}, {}
        for path in folder.glob("memory_*.pt"):
            for row, following, of_row in torch.load(path, weights_only=True):
                self._loaded[row] = following, of_row

    def _before(self, rows: range, segment: int, device: torch.device) -> Mems | None:
        following, mems = self._kept.get(rows.start) or self._from_checkpoint(rows, device)
        if following != segment:
            raise RecipeError(
                f"segment {segment} does not follow what was read of rows {rows[0]} to {rows[-1]}: {following} does"
            )
        return mems

    def _from_checkpoint(self, rows: range, device: torch.device) -> tuple[int, Mems | None]:
        if rows.start not in self._loaded:
            raise RecipeError(f"there is no memory of rows {rows[0]} to {rows[-1]}: was the checkpoint saved whole?")
        following, of_row = self._loaded[rows.start]
        if of_row is None:
            return following, None
        together = torch.stack([self._loaded.pop(row)[1] for row in rows], dim=1).to(device)
        return following, together.unbind(0)
