"""A Trainer script that nobody here wrote: TRL's own entry point for supervised fine-tuning, unmodified."""

from __future__ import annotations

import json

import pytest

from tests import counting
from tests.compare.conftest import compare, summary


@pytest.fixture
def task(tmp_path, monkeypatch):
    """In the current folder a tiny language model, `model`, and what it is to learn, `data`."""
    monkeypatch.chdir(tmp_path)
    counting.tokenizer().save_pretrained("model")
    counting.model().save_pretrained("model")
    (tmp_path / "data").mkdir()
    for split, count in (("train", 64), ("test", 16)):
        texts = (json.dumps({"text": line}) + "\n" for line in counting.lines(count))
        (tmp_path / "data" / f"{split}.jsonl").write_text("".join(texts))
    return tmp_path


def test_trl_is_compared_as_it_is(task):
    words = (
        "-m trl.scripts.sft --model_name_or_path model --dataset_name data --max_length 32 --bf16 False --use_cpu "
        "--max_steps 8 --per_device_train_batch_size 16 --eval_strategy steps --eval_steps 4 --logging_steps 1 "
        "--save_strategy no --report_to none --lr_scheduler_type constant"
    )
    ours = ["--optims", "adamw_torch,adamw_win", "--lrs", "3e-2", "--seeds", "1", "--jobs", "2", "--out", "out"]
    assert compare(*words.split(), *ours) == 0
    result = summary(task / "out")
    assert result["runs"]["finished"] == 2 and result["steps"] == {"fewest": 8, "most": 8}
    assert [row["state_bytes"] > 0 for row in result["optimizers"]] == [True, True]
    one, other = (json.loads(line) for line in (task / "out" / "runs.jsonl").read_text().splitlines())
    assert one["losses"] != other["losses"]  # two optimizers
    assert [entry["step"] for entry in one["evaluations"]] == [4, 8]
    assert one["evaluations"][1]["eval_loss"] < one["evaluations"][0]["eval_loss"]
