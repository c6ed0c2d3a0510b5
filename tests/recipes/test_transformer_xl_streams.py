"""The order in which a text is read: contiguous, complete, and the same however many processes there are."""

from __future__ import annotations

import pytest
import torch

from recipes.common import RecipeError
from recipes.transformer_xl import streams

TEXT = torch.arange(100, 203)


def test_every_row_goes_on_where_it_ended():
    read = streams.for_training(TEXT, rows=4, segment=6)
    assert read.ids.shape == (4, 25) and len(read) == 4
    rows = torch.cat([segment["input_ids"] for segment in read], dim=1)
    assert torch.equal(rows, TEXT[:100].view(4, 25)[:, :24])
    for segment in read:
        assert torch.equal(segment["labels"][:, :-1], segment["input_ids"])
        assert torch.equal(segment["labels"][:, 1:], segment["input_ids"] + 1)  # the word that follows


def test_the_last_segment_may_be_shorter_and_nothing_is_read_twice():
    read = streams.for_training(TEXT, rows=3, segment=10)
    assert [segment["input_ids"].shape[1] for segment in read] == [10, 10, 10, 3]
    targets = torch.cat([segment["labels"][:, 1:] for segment in read], dim=1)
    assert torch.equal(targets, TEXT[:102].view(3, 34)[:, 1:])
    with pytest.raises(IndexError):
        read[4]


def test_an_evaluation_predicts_every_word():
    read = streams.for_evaluation(TEXT, segment=8, end=0)
    predicted = torch.cat([segment["labels"][:, 1:] for segment in read], dim=1)
    assert torch.equal(predicted[0], TEXT)
    assert read[0]["input_ids"][0, 0] == 0


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_share_the_rows(processes):
    whole = streams.for_training(TEXT, rows=4, segment=6)
    parts = [whole.of_process(rank, processes) for rank in range(processes)]
    for index, segment in enumerate(whole):
        together = torch.cat([part[index]["input_ids"] for part in parts])
        assert torch.equal(together, segment["input_ids"])


def test_what_is_refused():
    with pytest.raises(RecipeError, match="103 words make 30 streams of 3, and a segment takes 6 and one more"):
        streams.for_training(TEXT, rows=30, segment=6)
    with pytest.raises(RecipeError, match="batch of 4 cannot be shared out equally to 3 processes"):
        streams.for_training(TEXT, rows=4, segment=6).of_process(0, 3)
    with pytest.raises(RecipeError, match="empty"):
        streams.for_evaluation(TEXT[:0], segment=6, end=0)
