"""A small text, and runs of both training scripts on it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from recipes.transformer_xl import run_transformer_xl, run_transformer_xl_no_trainer

SIZES = "--d_model 16 --n_layer 2 --n_head 2 --d_head 8 --d_inner 24 --cutoffs 5 12 --tgt_len 8 --mem_len 6"
QUIET = "--report_to none --disable_tqdm true --dataloader_pin_memory false --save_strategy no --logging_steps 1"
STEPS = "--max_steps 6 --eval_strategy steps --eval_steps 3 --per_device_train_batch_size 4 --learning_rate 1e-2"
WORDS = ["the", "a", "cat", "dog", "old", "new", "sees", "hears", "fast", "slow", ".", ",", "and", "or", "but"]
SCRIPTS = {"trainer": run_transformer_xl, "no_trainer": run_transformer_xl_no_trainer}


def write_words(folder: Path) -> Path:
    """A folder of text: 4 rows of it are 5 segments, so that the sixth step begins it anew."""
    choice = random.Random(0)
    for split, lines in {"train": 23, "validation": 6, "test": 7}.items():
        text = [" ".join(choice.choices(WORDS, range(len(WORDS), 0, -1), k=6)) for _ in range(lines)]
        (folder / f"{split}.txt").write_text("\n".join(text) + "\n")
    return folder


def run(script: str, words: Path, folder: Path, extra: str = "") -> dict[str, Any]:
    where = ["--dataset_name", str(words), "--output_dir", str(folder)]
    return SCRIPTS[script].main([*where, *f"{SIZES} {QUIET} {STEPS} {extra}".split()])


def losses(results: dict[str, Any]) -> list[float]:
    return [entry["loss"] for entry in results["history"]["train"]]


def assert_same_bits(one: Path, other: Path) -> None:
    first, second = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
