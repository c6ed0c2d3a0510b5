"""A text as contiguous streams, read on segment by segment: the order in which memory means something."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from recipes.common import RecipeError

Segment = dict[str, Tensor]


@dataclass(frozen=True)
class Streams:
    """The rows of a batch, each a part of the text that goes on where its last segment ended.

    Args:
        ids: [rows, words].
        segment: words of a segment; the last one may be shorter.
    """

    ids: Tensor
    segment: int

    def __len__(self) -> int:
        """How many segments each row has."""
        return -(-(self.ids.shape[1] - 1) // self.segment)

    def __getitem__(self, index: int) -> Segment:
        """Segment `index` of every row: `input_ids` [rows, Q]; `labels` [rows, Q + 1], with the word that follows."""
        if not 0 <= index < len(self):
            raise IndexError(f"segment {index} of {len(self)}")
        start = index * self.segment
        labels = self.ids[:, start : start + self.segment + 1]
        return {"input_ids": labels[:, :-1], "labels": labels}

    def __iter__(self) -> Iterator[Segment]:
        return (self[index] for index in range(len(self)))

    def of_process(self, rank: int, processes: int) -> Streams:
        """The rows that process `rank` of `processes` reads: together they read each row once.

        Raises:
            RecipeError: the rows cannot be shared out equally.
        """
        rows = self.ids.shape[0]
        if rows % processes:
            raise RecipeError(f"a batch of {rows} cannot be shared out equally to {processes} processes")
        return Streams(self.ids.chunk(processes)[rank], self.segment)


def for_training(ids: Tensor, rows: int, segment: int) -> Streams:
    """The text [words] cut into `rows` streams of equal length; what is left over, fewer words than rows, is not read.

    Raises:
        RecipeError: a stream would be shorter than a segment and the word that follows it.
    """
    length = len(ids) // rows
    if length < segment + 1:
        raise RecipeError(
            f"{len(ids)} words make {rows} streams of {length}, and a segment takes {segment} and one more: "
            "give more text, a smaller batch or shorter segments"
        )
    return Streams(ids[: rows * length].view(rows, length), segment)


def for_evaluation(ids: Tensor, segment: int, end: int) -> Streams:
    """The whole text as one stream, begun by the end of a line so that its first word is predicted as well.

    Raises:
        RecipeError: the text is empty.
    """
    if not len(ids):
        raise RecipeError("the text to evaluate on is empty")
    return Streams(torch.cat([ids.new_tensor([end]), ids])[None], segment)
