"""What the model remembers of each row, from one batch to the next and from one process to another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recipes.common import RecipeError
from recipes.transformer_xl.streams import Streams

Mems = tuple[Tensor, ...]


class Memory:
    """The memory of the rows that this process reads; None stands for that of a model which keeps none.

    Args:
        streams: that are read.
    """

    def __init__(self, streams: Streams) -> None:
        self.streams = streams
        self._kept: dict[int, tuple[int, int, Mems | None]] = {}  # first row of a batch -> rows, next segment, memory
        self._loaded: dict[int, tuple[int, Tensor | None]] = {}  # row -> next segment, memory [n_layer, M, d_model]

    def read(self, model: nn.Module, batch: Mapping[str, Any]) -> Any:
        """What the model makes of a batch of `streams.collate`, after all that it read of these rows before.

        Raises:
            RecipeError: the batch does not go on where the rows' last one ended.
        """
        row, segment, input_ids = batch["row"], batch["segment"], batch["input_ids"]
        mems = None if segment == 0 else self._before(range(row, row + len(input_ids)), segment, input_ids.device)
        output = model(input_ids=input_ids, labels=batch["labels"], mems=mems)
        self._kept[row] = len(input_ids), segment + 1, output.mems
        return output

    def save(self, folder: Path, process: int, processes: int) -> None:
        """Add this process' part to a checkpoint."""
        parts = []
        for first, (rows, following, mems) in self._kept.items():
            of_rows = [None] * rows if mems is None else torch.stack(mems).cpu().unbind(1)
            parts += [(row, following, of_row) for row, of_row in enumerate(of_rows, start=first)]
        torch.save({"layout": self.streams.layout, "processes": processes, "parts": parts}, _file(folder, process))

    def load(self, folder: Path) -> None:
        """Take what all processes saved, so that any number of them can go on.

        Raises:
            RecipeError: some of it is missing, or it is of other streams.
        """
        self._kept, self._loaded = {}, {}
        process, processes = 0, 1
        while process < processes:
            if not _file(folder, process).is_file():
                raise RecipeError(f"{folder} is no whole checkpoint of this script: it has no memory_{process}.pt")
            saved = torch.load(_file(folder, process), weights_only=True)
            if saved["layout"] != self.streams.layout:
                raise RecipeError(
                    f"{folder} was saved when reading {_words(saved['layout'])}, and now there are "
                    f"{_words(self.streams.layout)}: go on with the same text, segments and rows in all"
                )
            self._loaded |= {row: (following, of_row) for row, following, of_row in saved["parts"]}
            process, processes = process + 1, saved["processes"]

    def _before(self, rows: range, segment: int, device: torch.device) -> Mems | None:
        if rows.start in self._kept:
            _, following, mems = self._kept[rows.start]
        else:
            following, mems = self._from_checkpoint(rows, device)
        if following != segment:
            raise RecipeError(
                f"segment {segment} does not follow what was read of rows {rows[0]} to {rows[-1]}: {following} does"
            )
        return mems

    def _from_checkpoint(self, rows: range, device: torch.device) -> tuple[int, Mems | None]:
        if not all(row in self._loaded for row in rows):
            raise RecipeError(f"there is no memory of rows {rows[0]} to {rows[-1]}: was what is before them not read?")
        following, of_rows = self._loaded[rows.start][0], [self._loaded.pop(row)[1] for row in rows]
        if of_rows[0] is None:
            return following, None
        return following, torch.stack(of_rows, dim=1).to(device).unbind(0)


def _file(folder: Path, process: int) -> Path:
    return folder / f"memory_{process}.pt"


def _words(layout: Mapping[str, int]) -> str:
    return "{rows} rows of {words} words in segments of {segment}".format(**layout)
