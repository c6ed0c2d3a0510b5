"""A script that is not ours, with Trainer and one of our optimizers, pushes: our card, and nothing private."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integrations.hub_client import ROOT, alone, hub

SCRIPT = """
import sys
import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, set_seed
from transformers import HfArgumentParser, TrainingArguments

(args,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses()
set_seed(0)
tokens = torch.randint(5, 100, (32, 8), generator=torch.Generator().manual_seed(1))
rows = [{"input_ids": row, "labels": int(row[0] >= 52)} for row in tokens]
small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
model = BertForSequenceClassification(BertConfig(vocab_size=100, max_position_embeddings=16, **small))
trainer = Trainer(model, args, train_dataset=rows, eval_dataset=rows)
trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
trainer.push_to_hub(dataset="rows", dataset_tags="owner/rows", tasks="text-classification")
"""
ARGUMENTS = (
    "--max_steps 4 --save_steps 1 --eval_strategy steps --eval_steps 1 --load_best_model_at_end true --logging_steps 1 "
    "--learning_rate 0.5 --report_to none --disable_tqdm true --use_cpu true --optim adamw_win --push_to_hub true "
    "--hub_model_id owner/model --hub_token hf_owner --hub_always_push true"
)
SECRETS = {"WANDB_API_KEY": "planted-key-1", "MY_PASSWORD": "planted-word-2"}
CHECKPOINTS = {"end": 0, "every_save": 0, "checkpoint": 1, "all_checkpoints": 4}


@pytest.mark.parametrize("strategy", CHECKPOINTS)
def test_every_push_has_our_card_and_nothing_private(strategy: str, tmp_path: Path) -> None:
    (tmp_path / "strategy").write_text(strategy)
    pushed_by_trainer(tmp_path)


@alone
def pushed_by_trainer(tmp_path: Path) -> None:
    strategy = (tmp_path / "strategy").read_text()
    with hub(tmp_path) as (server, api):
        script, out = tmp_path / "here" / "train.py", tmp_path / "alices folder" / "out"
        script.parent.mkdir()
        script.write_text(SCRIPT)
        command = [sys.executable, "-m", "hf_winopt", "run", str(script), *ARGUMENTS.split()]
        command += ["--hub_strategy", strategy, "--output_dir", str(out)]
        environment = {**SECRETS, **server.environment(tmp_path / "home", "hf_owner"), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=script.parent, env=environment, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr

        commits = [commit.commit_id for commit in api.list_repo_commits("owner/model")][:-1]  # but the first, empty one
        assert len(commits) >= {"end": 1, "every_save": 5, "checkpoint": 9, "all_checkpoints": 9}[strategy]
        for commit in commits:
            files = server.files("owner/model", commit)
            assert b"trained with adamw_win" in files["README.md"]
            for path, content in files.items():
                for secret in ("hf_owner", str(tmp_path), "alices folder", str(Path.home()), *SECRETS.values()):
                    assert secret.encode() not in content, (path, secret)
        files = server.files("owner/model")
        assert {name: files[name] for name in ("README.md", "results.json", "curves.png", "model.safetensors")} == {
            name: (out / name).read_bytes() for name in ("README.md", "results.json", "curves.png", "model.safetensors")
        }
        card = files["README.md"].decode()
        assert "# BertForSequenceClassification on rows" in card and 'from_pretrained("owner/model")' in card
        assert re.search(r"The weights are those of step \d, chosen by loss\.", card) and "Not finished" not in card
        assert f"hf_winopt run train.py {ARGUMENTS.split(' --hub_token')[0]}" in card
        assert len([path for path in files if path.endswith("optimizer.pt")]) == CHECKPOINTS[strategy], sorted(files)
        if strategy != "end":
            assert b"**Not finished**: this is step 1 of 4" in server.files("owner/model", commits[-1])["README.md"]
