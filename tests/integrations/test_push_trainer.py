"""A script that is not ours, with Trainer and one of our optimizers, pushes: our card, and nothing private."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest

from tests.hub_server import HubServer
from tests.integrations.hub_client import ROOT, alone, hub

if TYPE_CHECKING:
    from huggingface_hub import HfApi

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
    "--hub_token hf_owner --hub_always_push true"
)
SECRETS = {"WANDB_API_KEY": "planted-key-1", "MY_PASSWORD": "planted-word-2"}
CHECKPOINTS = {"end": 0, "every_save": 0, "checkpoint": 1, "all_checkpoints": 4}


@alone
def test_every_push_has_our_card_and_nothing_private(tmp_path: Path) -> None:
    script = tmp_path / "here" / "train.py"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    # Trainer pushes in a thread of its own, where files may already be those of the next step: not so here.
    with hub(tmp_path) as (server, api), patch.object(type(api), "run_as_future", at_once):
        os.environ |= SECRETS
        os.chdir(script.parent)
        from hf_winopt.cli import main as run  # reads where the Hub is, as the client does

        for strategy in CHECKPOINTS:
            out = tmp_path / "alices folder" / strategy
            arguments = [*ARGUMENTS.split(), "--hub_model_id", f"owner/{strategy}", "--hub_strategy", strategy]
            command = ["hf-winopt", "run", str(script), *arguments, "--output_dir", str(out)]
            with patch.object(sys, "orig_argv", [sys.executable, str(Path(sys.executable).parent / command[0])]):
                sys.orig_argv += command[1:]
                assert run(command[1:]) == 0
            check(server, api, strategy, out)


@pytest.mark.parametrize(("optim", "strategy"), [("adamw_win", "checkpoint"), ("adamw_torch", "end")])
def test_several_processes_push(optim: str, strategy: str, tmp_path: Path) -> None:
    """Only the main one has anything to do with it; with another optimizer, none of ours."""
    script, out = tmp_path / "train.py", tmp_path / "out"
    script.write_text(SCRIPT)
    arguments = ARGUMENTS.replace("adamw_win", optim).replace("hf_owner", "hf_owner --ddp_backend gloo")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "hf_winopt", "run", str(script), *arguments.split(), "--hub_model_id", "owner/two"]
    with HubServer(tmp_path / "hub", {"hf_owner": "owner"}) as server:
        environment = {**os.environ, **server.environment(tmp_path / "home", "hf_owner"), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [*command, "--hub_strategy", strategy, "--output_dir", str(out)],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        files = server.files("owner/two")
    assert files["model.safetensors"] == (out / "model.safetensors").read_bytes()
    assert (b"hf-winopt" in files["README.md"]) == (optim == "adamw_win")
    assert ("last-checkpoint/optimizer.pt" in files) == (strategy == "checkpoint")
    if optim == "adamw_win":
        assert b"accelerate launch --num_processes 2 -m hf_winopt run" in files["README.md"]


def at_once(_: HfApi, push: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:
    done: Future[Any] = Future()
    done.set_result(push(*args, **kwargs))
    return done


def check(server: HubServer, api: HfApi, strategy: str, out: Path) -> None:
    id = f"owner/{strategy}"
    commits = [commit.commit_id for commit in api.list_repo_commits(id)][:-1]  # but the first, empty one
    assert len(commits) >= {"end": 1, "every_save": 5, "checkpoint": 9, "all_checkpoints": 9}[strategy]
    private = ("hf_owner", str(out.parents[1]), "alices folder", str(Path.home()), *SECRETS.values())
    for commit in commits:
        files = server.files(id, commit)
        assert b"trained with adamw_win" in files["README.md"]
        for path, content in files.items():
            for secret in private:
                assert secret.encode() not in content, (path, secret)
    files = server.files(id)
    for name in ("README.md", "results.json", "curves.png", "model.safetensors"):
        assert files[name] == (out / name).read_bytes()
    card = files["README.md"].decode()
    assert "# BertForSequenceClassification on rows" in card and f'from_pretrained("{id}")' in card
    assert re.search(r"The weights are those of step \d, chosen by loss\.", card) and "Not finished" not in card
    assert "hf-winopt run train.py --max_steps 4" in card and f"--hub_strategy {strategy}" in card
    assert len([path for path in files if path.endswith("optimizer.pt")]) == CHECKPOINTS[strategy], sorted(files)
    if strategy != "end":
        assert b"**Not finished**: this is step 1 of 4" in server.files(id, commits[-1])["README.md"]
