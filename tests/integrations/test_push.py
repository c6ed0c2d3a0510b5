"""What a recipe pushes can be loaded anywhere and scores what its card says: the real client, a Hub on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("kornia")

from tests.integrations.hub_client import ROOT, alone, hub

TINY = '{"hidden_size":16,"num_hidden_layers":2,"num_attention_heads":2,"intermediate_size":16}'
TRAIN = (
    f"--config_overrides {TINY} --max_train_samples 90 --max_eval_samples 40 --optim adamw_win --learning_rate 1e-2 "
    "--max_steps 4 --save_steps 2 --per_device_train_batch_size 16 --report_to none --disable_tqdm true --use_cpu true "
    "--push_to_hub true --hub_model_id owner/digits --hub_private_repo true --hub_always_push true "
    "--license apache-2.0 --logging_steps 1"
)
LOAD = """
import sys
import torch
from transformers import pipeline
from recipes.vit import sources

classify = pipeline("image-classification", model="owner/digits", device="cpu")
source = sources.load(sources.EMBEDDED, None)
predicted = [scores[0]["label"] for scores in classify([source.open("test", row) for row in range(40)])]
print(sum(label == str(truth) for label, truth in zip(predicted, source.splits["test"]["label"][:40])) / 40)
"""
CHECKPOINTS = {"end": 0, "every_save": 0, "checkpoint": 1, "all_checkpoints": 2}


@pytest.mark.parametrize("strategy", CHECKPOINTS)
def test_what_is_pushed_is_what_was_trained(strategy: str, tmp_path: Path) -> None:
    (tmp_path / "strategy").write_text(strategy)
    trained_pushed_and_loaded(tmp_path)


@alone
def trained_pushed_and_loaded(tmp_path: Path) -> None:
    strategy = (tmp_path / "strategy").read_text()
    with hub(tmp_path) as (server, _):
        from recipes.vit import run_vit

        folder = tmp_path / "out"
        extra = f"--hub_strategy {strategy} --hub_token hf_owner --output_dir {folder}"
        results = run_vit.main([*TRAIN.split(), *extra.split()])
        files = server.files("owner/digits")
        for name in ("README.md", "results.json", "curves.png", "model.safetensors", "preprocessor_config.json"):
            assert files[name] == (folder / name).read_bytes(), name
        assert "trained with adamw_win" in files["README.md"].decode()
        weights = [path for path in files if path.endswith("optimizer.pt")]
        assert len(weights) == CHECKPOINTS[strategy], sorted(files)
        for path, content in files.items():
            assert b"hf_owner" not in content and str(tmp_path).encode() not in content, path
        environment = {**os.environ, **server.environment(tmp_path / "elsewhere", "hf_owner"), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", LOAD]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr
        accuracy = json.loads(done.stdout.splitlines()[-1])
        assert accuracy == pytest.approx(results["metrics"]["test"]["accuracy"])
