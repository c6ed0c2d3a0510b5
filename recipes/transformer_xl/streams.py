"""A text as contiguous streams, read on segment by segment: the order in which memory means something.

A batch is a segment of some rows; the next batch of the same rows is the segment that follows. All is in the order of
the data set's own indices, first all rows of a segment, then all rows of the next. So reading one after the other, and
giving consecutive batches to consecutive processes and accumulation steps in turn, as Accelerate does, is right as it
is, and any number of them reads the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from recipes.common import RecipeError

NOT_PREDICTED = -100


class Streams(Dataset[dict[str, Any]]):
    """Segments of rows, each row a part of the text that goes on where its last segment ended.

    Args:
        ids: [rows, words]; words that are not to be predicted are -100.
        segment: words of a segment; the last one may be shorter.
    """

    def __init__(self, ids: Tensor, segment: int) -> None:
        self.ids = ids
        self.segment = segment
        self.rows = ids.shape[0]
        self.segments = -(-(ids.shape[1] - 1) // segment)

    @property
    def layout(self) -> dict[str, int]:
        """By what a checkpoint knows them again."""
        return {"rows": self.rows, "words": self.ids.shape[1], "segment": self.segment}

    def __len__(self) -> int:
        return self.rows * self.segments

    def __getitem__(self, index: int) -> dict[str, Any]:
        """`input_ids` [Q]; `labels` [Q + 1], with the word that follows; and of which `segment` and `row` they are."""
        if not 0 <= index < len(self):
            raise IndexError(f"{index} of {len(self)}")
        segment, row = divmod(index, self.rows)
        start = segment * self.segment
        labels = self.ids[row, start : start + self.segment + 1]
        return {"input_ids": labels[:-1].clamp(min=0), "labels": labels, "segment": segment, "row": row}


def collate(examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A batch: `input_ids` [B, Q], `labels` [B, Q + 1], the `segment`, and the first `row`; the others follow it.

    The last two are plain numbers, so that reading them waits for no device.

    Raises:
        ValueError: the examples are not rows of one segment that follow each other.
    """
    first = examples[0]
    places = [(example["segment"], example["row"]) for example in examples]
    if places != [(first["segment"], first["row"] + index) for index in range(len(examples))]:
        raise ValueError(f"a batch must be rows of one segment that follow each other, not (segment, row) {places}")
    batch = {key: torch.stack([example[key] for example in examples]) for key in ("input_ids", "labels")}
    return {**batch, "segment": first["segment"], "row": first["row"]}


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


def for_evaluation(ids: Tensor, rows: int, segment: int, end: int) -> Streams:
    """The whole text as `rows` streams, of which every word is predicted once.

    Each begins with the word before it, the first with the end of a line. One row is exact; with more each but the
    first begins without a memory, and the perplexity is a little higher.

    Raises:
        RecipeError: the text has fewer words than rows.
    """
    if len(ids) < rows:
        raise RecipeError(f"a text of {len(ids)} words cannot be evaluated as {rows} streams: take a smaller batch")
    context = torch.cat([ids.new_tensor([end]), ids])
    parts = ids.tensor_split(rows)
    starts = torch.tensor([0, *(len(part) for part in parts)]).cumsum(0)
    table = torch.full((rows, len(parts[0]) + 1), NOT_PREDICTED, dtype=ids.dtype)
    for row, (part, start) in enumerate(zip(parts, starts, strict=False)):
        table[row, 0] = context[start]
        table[row, 1 : len(part) + 1] = part
    return Streams(table, segment)
