"""The order in which a text is read: contiguous, complete, and the same however many processes there are."""

from __future__ import annotations

import pytest
import torch
from accelerate.data_loader import prepare_data_loader, skip_first_batches
from torch.utils.data import DataLoader

from recipes.common import RecipeError
from recipes.transformer_xl import streams
from recipes.transformer_xl.streams import collate

TEXT = torch.arange(100, 203)


def batches(read: streams.Streams, rows: int) -> list[dict]:
    return list(DataLoader(read, batch_size=rows, collate_fn=collate))


def test_every_row_goes_on_where_it_ended():
    read = streams.for_training(TEXT, rows=4, segment=6)
    assert read.ids.shape == (4, 25) and read.segments == 4 and len(read) == 16
    found = batches(read, 4)
    rows = torch.cat([batch["input_ids"] for batch in found], dim=1)
    assert torch.equal(rows, TEXT[:100].view(4, 25)[:, :24])
    assert [(batch["segment"], batch["row"]) for batch in found] == [(0, 0), (1, 0), (2, 0), (3, 0)]
    for batch in found:
        assert torch.equal(batch["labels"][:, :-1], batch["input_ids"])
        assert torch.equal(batch["labels"][:, 1:], batch["input_ids"] + 1)  # the word that follows


def test_the_last_segment_may_be_shorter_and_nothing_is_read_twice():
    found = batches(streams.for_training(TEXT, rows=3, segment=10), 3)
    assert [batch["input_ids"].shape[1] for batch in found] == [10, 10, 10, 3]
    targets = torch.cat([batch["labels"][:, 1:] for batch in found], dim=1)
    assert torch.equal(targets, TEXT[:102].view(3, 34)[:, 1:])


def test_a_batch_of_fewer_rows_is_the_next_part_of_the_same_segment():
    found = batches(streams.for_training(TEXT, rows=4, segment=6), 2)
    assert [(batch["segment"], batch["row"]) for batch in found[:4]] == [(0, 0), (0, 2), (1, 0), (1, 2)]


@pytest.mark.parametrize(("processes", "rows"), [(2, 2), (2, 1), (4, 1)])
def test_what_accelerate_gives_to_each_process(processes, rows):
    read = streams.for_training(TEXT, rows=4, segment=6)
    loader = DataLoader(read, batch_size=rows, collate_fn=collate)
    mine = [
        list(prepare_data_loader(loader, num_processes=processes, process_index=rank, put_on_device=False))
        for rank in range(processes)
    ]
    for parts, whole in zip(zip(*mine, strict=True), batches(read, processes * rows), strict=True):
        assert {part["segment"] for part in parts} == {whole["segment"]}
        assert torch.equal(torch.cat([part["input_ids"] for part in parts]), whole["input_ids"])


def test_going_on_in_the_middle_finds_the_same_batches():
    read = streams.for_training(TEXT, rows=4, segment=6)
    rest = list(skip_first_batches(DataLoader(read, batch_size=2, collate_fn=collate), 3))
    assert [(batch["segment"], batch["row"]) for batch in rest][:2] == [(1, 2), (2, 0)]
    assert torch.equal(rest[0]["input_ids"], batches(read, 2)[3]["input_ids"])


@pytest.mark.parametrize("rows", [1, 2, 7, 103])
def test_an_evaluation_predicts_every_word_once(rows):
    read = streams.for_evaluation(TEXT, rows, segment=8, end=0)
    predicted = torch.cat([batch["labels"][:, 1:] for batch in batches(read, rows)], dim=1)
    assert torch.equal(predicted[predicted != streams.NOT_PREDICTED], TEXT)
    assert read[0]["input_ids"][0] == 0
    assert all(batch["input_ids"].min() >= 0 for batch in batches(read, rows))
    begins = read.ids[1:, 0]  # with the word before
    assert torch.equal(begins + 1, read.ids[1:, 1])


def test_what_is_refused():
    with pytest.raises(RecipeError, match="103 words make 30 streams of 3, and a segment takes 6 and one more"):
        streams.for_training(TEXT, rows=30, segment=6)
    with pytest.raises(RecipeError, match="103 words make 200 streams of 0"):
        streams.for_training(TEXT, rows=200, segment=6)
    with pytest.raises(RecipeError, match="text of 3 words cannot be evaluated as 4 streams"):
        streams.for_evaluation(TEXT[:3], rows=4, segment=6, end=0)
    read = streams.for_training(TEXT, rows=4, segment=6)
    with pytest.raises(ValueError, match="rows of one segment"):
        collate([read[3], read[4]])
    with pytest.raises(IndexError):
        streams.for_training(TEXT, rows=4, segment=6)[16]
