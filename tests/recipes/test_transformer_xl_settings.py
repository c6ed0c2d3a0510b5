"""The settings files: the papers' own, and a small one that trains the embedded text."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipes.transformer_xl import run_transformer_xl
from recipes.transformer_xl.arguments import parse
from recipes.transformer_xl.experiment import eval_config

CONFIGS = Path(run_transformer_xl.__file__).parent / "configs"
PAPERS = {  # max_steps, learning_rate, warm-up of the Win paper's Table 3 and the Adan paper's Table 4
    "base.yaml": ("adam_win", 200_000, 2.5e-4, 0),
    "base.yaml 50k.yaml": ("adam_win", 50_000, 2.5e-4, 0),
    "base.yaml 100k.yaml": ("adam_win", 100_000, 2.5e-4, 0),
    "base.yaml adam.yaml": ("adamw_torch_fused", 200_000, 2.5e-4, 0),
    "base.yaml adan_50k.yaml": ("adan", 50_000, 1.5e-3, 5000),
    "base.yaml adan_100k.yaml": ("adan", 100_000, 1e-3, 5000),
    "base.yaml adan_200k.yaml": ("adan", 200_000, 1e-3, 5000),
}


@pytest.mark.parametrize("files", PAPERS)
def test_the_papers_settings(files):
    model_args, text_args, args = parse("x", [str(CONFIGS / name) for name in files.split()])
    optim, steps, rate, warmup = PAPERS[files]
    assert (args.optim, args.max_steps, args.learning_rate) == (optim, steps, rate)
    assert args.get_warmup_steps(steps) == warmup and args.weight_decay == (0.02 if optim == "adan" else 0)
    assert args.max_grad_norm == 0.25 and args.per_device_train_batch_size == 60
    assert (text_args.tgt_len, text_args.mem_len) == (150, 150)
    assert eval_config(text_args) == {"mem_len": 640, "clamp_len": 400, "same_length": True}
    assert (model_args.n_layer, model_args.d_model, model_args.d_inner) == (16, 410, 2100)
    if optim == "adan":
        assert args.lr_scheduler_kwargs == {"min_lr": 1e-6} and args.optim_args == "betas=0.9:0.9:0.999"


def test_every_settings_file_is_tested_or_small():
    used = {name for files in PAPERS for name in files.split()}
    assert {path.name for path in CONFIGS.glob("*.yaml")} == used | {"small.yaml"}


def test_the_small_settings_train_the_embedded_text(tmp_path):
    words = "--max_steps 2 --eval_steps 2 --save_strategy no --report_to none --disable_tqdm true"
    results = run_transformer_xl.main([str(CONFIGS / "small.yaml"), *words.split(), "--output_dir", str(tmp_path)])
    assert results["dataset"]["name"] == "embedded" and results["training"]["vocabulary"] > 2000
    assert results["metrics"]["test"]["perplexity"] < results["training"]["vocabulary"]
