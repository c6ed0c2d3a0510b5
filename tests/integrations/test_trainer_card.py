"""Trainer with one of our optimizers: whose card is written and when, and that a training never dies of it."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import transformers.trainer
from huggingface_hub import metadata_load
from transformers import BertForSequenceClassification, Trainer

from hf_winopt import WinOptCardCallback, cli
from hf_winopt.integrations import trainer_facts, trainer_results
from tests.integrations.trainer_cards import card_of, is_ours, results_of


@pytest.mark.parametrize("how", ["callback", "environment", "optimizer", "own card"])
def test_who_keeps_trainers_card(how, trained, monkeypatch):
    if how == "environment":
        monkeypatch.setenv("HF_WINOPT_CARD", "0")
    trainer = trained(optim="adamw_torch" if how == "optimizer" else "adamw_win")
    if how == "callback":
        trainer.remove_callback(WinOptCardCallback)
    if how == "own card":

        class WithOwn(Trainer):
            def create_model_card(self, *args: Any, **kwargs: Any) -> None:
                super().create_model_card(*args, **kwargs)

        trainer.__class__ = WithOwn
    trainer.create_model_card()
    trainer.save_model()
    assert not is_ours(trainer)
    assert not Path(trainer.args.output_dir, "results.json").exists()


def test_a_model_that_is_saved_has_its_results_beside_it(trained, capsys):
    trainer = trained()
    trainer.save_model()
    folder = trainer.args.output_dir
    assert not Path(folder, "README.md").exists()
    assert cli.main(["card", folder]) == 0
    saved = card_of(trainer)
    assert is_ours(trainer)
    trainer.create_model_card()
    assert saved == card_of(trainer)
    elsewhere = Path(folder, "copy")
    trainer.save_model(str(elsewhere))
    assert not (elsewhere / "results.json").exists()


def test_somebody_elses_results_stay(trained, caplog):
    trainer = trained()
    theirs = Path(trainer.args.output_dir, "results.json")
    for content in ('{"accuracy": 1}', "[1", "[]"):
        theirs.write_text(content)
        trainer.create_model_card()
        assert theirs.read_text() == content and "stays as it is" in caplog.text
        assert is_ours(trainer) and "curves.png" not in card_of(trainer)
        caplog.clear()


def test_whatever_is_wrong_with_a_card_training_goes_on(trained, caplog, monkeypatch):
    trainer = trained()
    monkeypatch.setattr(trainer_results, "results_of", lambda *_, **__: 1 / 0)
    trainer.create_model_card()
    trainer.save_model()
    assert not is_ours(trainer) and "ZeroDivisionError" in caplog.text
    assert Path(trainer.args.output_dir, "model.safetensors").exists()


def test_folders_and_tokens_that_a_script_says(trained, tmp_path):
    trainer = trained()
    folder = str(tmp_path / "data")
    trainer.create_model_card(dataset=f"{folder}/x.csv", dataset_tags=[folder, "owner/more"], tags=["hf_" + "aB3x" * 8])
    text, results = card_of(trainer), results_of(trainer)
    assert str(tmp_path) not in text + json.dumps(results) and "aB3x" not in text + json.dumps(results)
    assert results["dataset"]["source"] == "local" and "datasets" not in metadata_load(tmp_path / "README.md")
    trainer.create_model_card(dataset_tags=["owner/one", "owner/two"], dataset=["one", "two"])
    assert metadata_load(tmp_path / "README.md")["datasets"] == ["owner/one", "owner/two"]


def test_a_base_model_that_is_gone(make_trainer, tiny_bert, tmp_path):
    base = tmp_path / "somewhere" / "base"
    tiny_bert().save_pretrained(base)
    model = BertForSequenceClassification.from_pretrained(str(base))
    shutil.rmtree(base.parent)
    trainer = make_trainer(model=model, optim="adamw_win", max_steps=1)
    trainer.train()
    trainer.create_model_card()
    assert "somewhere" not in card_of(trainer) and "# base, trained with adamw_win" in card_of(trainer)
    assert results_of(trainer)["model"]["source"] == "local"


def test_secrets_of_the_environment_in_the_command(trained, monkeypatch):
    trainer = trained()
    monkeypatch.setenv("SOME_API_KEY", "planted-secret")
    monkeypatch.setattr(sys, "orig_argv", ["python", "train.py", "--note", "planted-secret"])
    trainer.create_model_card()
    assert results_of(trainer)["command"] is None and "planted-secret" not in card_of(trainer)
    trainer.create_model_card(dataset="planted-secret")  # then there is nothing that could be left out
    assert "planted-secret" not in json.dumps(results_of(trainer))


def test_only_a_card_that_was_asked_for_asks_the_hub(trained, monkeypatch):
    asked: list[str | None] = []
    summary = trainer_facts.TrainingSummary.from_trainer
    monkeypatch.setattr(
        trainer_facts.TrainingSummary,
        "from_trainer",
        lambda trainer, **said: (asked.append(said.get("license")), summary(trainer, **said))[1],
    )
    trainer = trained()
    trainer.save_model()
    assert asked == [""]  # Trainer asks where there is none
    trainer.create_model_card()
    assert asked == ["", None] and results_of(trainer)["license"] is None


def test_a_script_that_only_evaluates_leaves_our_card(trained, make_trainer):
    trained().create_model_card()
    trainer = make_trainer(optim="adamw_win")
    trainer.evaluate()
    before = card_of(trainer)
    trainer.create_model_card()
    assert card_of(trainer) == before and is_ours(trainer)


class Endless(torch.utils.data.IterableDataset):
    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows

    def __iter__(self) -> Any:
        return itertools.cycle(self.rows)

    def __len__(self) -> int:
        raise TypeError("nobody knows")


def test_data_of_unknown_length(make_trainer, examples):
    trainer = make_trainer(optim="adamw_win", max_steps=2)
    trainer.train_dataset = Endless(examples)
    trainer.train()
    for folder in (Path(trainer.args.output_dir), f"{trainer.args.output_dir}/"):
        trainer.save_model(folder)
        assert "train_examples" not in results_of(trainer)["training"]
        Path(trainer.args.output_dir, "results.json").unlink()


def test_code_that_the_model_needs_goes_along_on_the_way(make_trainer, tmp_path):
    trainer = make_trainer(optim="adamw_win", max_steps=2)
    trainer.train()
    checkpoint = tmp_path / "checkpoint-2"
    checkpoint.mkdir()
    (checkpoint / "modeling.py").write_text("code")
    (checkpoint / "README.md").write_text(f"---\nbase_model: {tmp_path}/base\n---\n")  # as PEFT leaves one
    trainer.push_in_progress = None
    trainer.args.hub_strategy = "checkpoint"
    trainer.hub_model_id = "owner/model"
    sends = "hf_api" if hasattr(transformers.trainer, "hf_api") else "upload_folder"
    with patch.object(transformers.trainer, sends):
        trainer._push_from_checkpoint(str(checkpoint))
    assert (tmp_path / "modeling.py").read_text() == "code"
    assert str(tmp_path) not in (checkpoint / "README.md").read_text()
    assert is_ours(trainer)
