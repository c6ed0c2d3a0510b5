"""A Trainer script that nobody here wrote: TRL's own entry point for supervised fine-tuning, unmodified."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tests.compare.conftest import compare, summary

SPECIAL = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}


@pytest.fixture
def task(tmp_path, monkeypatch):
    """In the current folder a tiny language model, `model`, and counted words for it, `data`."""
    monkeypatch.chdir(tmp_path)
    words = [*SPECIAL.values(), *map(str, range(20))]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=32, **SPECIAL).save_pretrained("model")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(words), **sizes, max_position_embeddings=32)).save_pretrained("model")
    (tmp_path / "data").mkdir()
    for split, count in (("train", 64), ("test", 16)):
        lines = ({"text": " ".join(str((start + step) % 20) for step in range(12))} for start in range(count))
        (tmp_path / "data" / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
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
