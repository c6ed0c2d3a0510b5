"""Trainer with one of our optimizers: whose card is written, what it says, and that a training never dies of it."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import peft
import pytest
import torch
import transformers.trainer
from huggingface_hub import metadata_load
from torch import nn
from transformers import BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

from hf_winopt import Adam, AdamW, WinOptCardCallback, cli
from hf_winopt.integrations import trainer_facts, trainer_results

SAID = {
    "dataset_tags": "nyu-mll/glue",
    "dataset": "GLUE CoLA",
    "dataset_args": "cola",
    "tasks": "text-classification",
    "language": "en",
    "license": "mit",
    "tags": "grammar",
}


@pytest.fixture
def trained(make_trainer):
    """A Trainer that has taken four steps; evaluated too, unless it is not to be."""

    def train(evaluated=True, **options):
        trainer = make_trainer(**{"optim": "adamw_win", "max_steps": 4, **options})
        trainer.train()
        if evaluated:
            trainer.evaluate()
        return trainer

    return train


def card_of(trainer: Trainer) -> str:
    return Path(trainer.args.output_dir, "README.md").read_text()


def results_of(trainer: Trainer) -> dict[str, Any]:
    return json.loads(Path(trainer.args.output_dir, "results.json").read_text())


def is_ours(trainer: Trainer) -> bool:
    text = card_of(trainer)
    assert ("hf-winopt" in text) != ("generated automatically according to the information the Trainer" in text)
    return "hf-winopt" in text


def test_what_the_script_says_and_what_trainer_knows(trained):
    trainer = trained()
    loss = trainer.evaluate()["eval_loss"]
    trainer.create_model_card(**SAID)
    assert is_ours(trainer)
    text, results = card_of(trainer), results_of(trainer)
    metadata = metadata_load(Path(trainer.args.output_dir, "README.md"))
    assert metadata["tags"] == ["hf-winopt", "adamw_win", "grammar"] and metadata["license"] == "mit"
    assert metadata["datasets"] == ["nyu-mll/glue"] and metadata["pipeline_tag"] == "text-classification"
    (result,) = metadata["model-index"][0]["results"]
    assert result["dataset"] == {"name": "GLUE CoLA", "type": "nyu-mll/glue", "config": "cola"}
    assert result["metrics"] == [{"type": "loss", "name": "loss", "value": loss}]
    assert "# BertForSequenceClassification on GLUE CoLA, trained with adamw_win" in text
    assert (
        "Trained on 32 examples of GLUE CoLA." in text
        and "| seed | `3` |" in text
        and "not finished" not in text.lower()
    )
    assert results["training"]["steps"] == results["step"] == 4 and len(results["history"]["train"]) == 4
    assert results["seconds_per_step"] > 0 and results["wall_seconds"] > 0 and results["state_bytes"] > 0
    assert Path(trainer.args.output_dir, "curves.png").stat().st_size > 5_000
    trainer.create_model_card()  # as Trainer does when it saves and pushes
    assert card_of(trainer) == text


def test_what_nobody_said_is_not_in_it(trained):
    trainer = trained(evaluated=False, logging_steps=100, logging_strategy="no")
    trainer.create_model_card()
    text, metadata = card_of(trainer), metadata_load(Path(trainer.args.output_dir, "README.md"))
    assert not {"datasets", "metrics", "license", "base_model", "language"} & set(metadata)
    assert "model-index" not in metadata and "model_name" not in metadata
    assert "# BertForSequenceClassification, trained with adamw_win" in text
    for absent in ("## Results", "curves.png", "None", "compared, in", "\n\n\n"):
        assert absent not in text
    assert not Path(trainer.args.output_dir, "curves.png").exists()


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


def test_the_scores_are_those_of_the_model(trained):
    """Of the best one, where Trainer has gone back to it."""
    often = {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 1, "save_steps": 1}
    trainer = trained(False, learning_rate=0.5, load_best_model_at_end=True, **often)
    best = trainer.state.best_global_step
    assert best < 4  # at this rate it gets worse
    for loss in (None, trainer.evaluate()["eval_loss"]):
        trainer.create_model_card()
        said = results_of(trainer)["metrics"]["evaluation"]["loss"]
        assert said == pytest.approx(min(entry.get("eval_loss", 9) for entry in trainer.state.log_history))
        assert loss is None or said == loss
        assert f"The weights are those of step {best}, chosen by loss." in card_of(trainer)
        assert "The scores are" not in card_of(trainer)


class EvaluatesOnce(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_evaluate = state.global_step == 3
        control.should_training_stop = state.global_step == 5


def test_scores_of_an_earlier_step_and_a_training_that_was_stopped(make_trainer):
    trainer = make_trainer(optim="adamw_win", max_steps=8)
    trainer.add_callback(EvaluatesOnce)
    trainer.train()
    trainer.create_model_card()
    assert "Stopped at step 5 of 8. The scores are those of step 3.\n" in card_of(trainer)


def test_several_data_splits(make_trainer, examples):
    trainer = make_trainer(optim="adamw_win", max_steps=2)
    trainer.compute_metrics = lambda predicted: {"accuracy": 0.5}
    trainer.eval_dataset = {"matched": examples, "mismatched": examples}
    trainer.train()
    trainer.evaluate()
    trainer.evaluate(examples, metric_key_prefix="test")
    trainer.create_model_card()
    results = results_of(trainer)
    assert list(results["metrics"]) == ["matched", "mismatched", "test"]
    assert all(list(scores) == ["accuracy", "loss"] for scores in results["metrics"].values())
    assert results["headline"] == "accuracy" and "| test | accuracy | 0.5000 |" in card_of(trainer)


def test_an_optimizer_that_was_given_itself(make_trainer, tiny_bert, examples, tmp_path):
    model = tiny_bert()
    args = TrainingArguments(str(tmp_path), max_steps=2, use_cpu=True, report_to="none", logging_steps=1)
    for acceleration, name in (("win2", "adamw_win2"), ("none", "AdamW")):
        optimizer = AdamW(model.parameters(), lr=1e-3, acceleration=acceleration)
        trainer = Trainer(model, args, train_dataset=examples, optimizers=(optimizer, None))
        trainer.train()
        trainer.create_model_card()
        assert f", trained with {name}\n" in card_of(trainer)


class Linear(nn.Module):
    """A model without a configuration."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Linear(8, 2)
        self.frozen = nn.Linear(8, 2).requires_grad_(False)

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": nn.functional.cross_entropy(self.weight(input_ids.float() / 100), labels)}


def test_a_model_that_is_not_of_transformers(make_trainer):
    trainer = make_trainer(model=Linear(), optim="adan", max_steps=2)
    trainer.train()
    trainer.create_model_card()
    text = card_of(trainer)
    assert "# Linear, trained with adan" in text and "## How to use it" not in text
    assert "for the 18 trained of 36 parameters" in text


def test_a_model_tuned_with_peft(make_trainer, tiny_bert):
    model = peft.get_peft_model(tiny_bert(), peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"]))
    trainer = make_trainer(model=model, optim="adamw_win", max_steps=2)
    trainer.train()
    trainer.save_model()
    trainer.create_model_card()
    assert is_ours(trainer)
    metadata = metadata_load(Path(trainer.args.output_dir, "README.md"))
    assert metadata["library_name"] == "peft" and metadata["tags"] == ["hf-winopt", "adamw_win", "lora"]
    text = card_of(trainer)
    assert "AutoPeftModelForSequenceClassification.from_pretrained" in text and f"peft {peft.__version__}" in text
    assert "trained of" in text
    trainer.save_model()  # PEFT puts its own card there
    assert is_ours(trainer) and card_of(trainer) == text


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


def test_what_was_given_ready_made(tiny_bert, examples, tmp_path):
    """The arguments know nothing of it."""
    model = tiny_bert().bfloat16()
    optimizer = Adam(model.parameters(), lr=3e-3, acceleration="win")
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
    args = TrainingArguments(str(tmp_path), max_steps=2, use_cpu=True, report_to="none", optim="adamw_win")
    trainer = Trainer(model, args, train_dataset=examples, optimizers=(optimizer, schedule))
    trainer.train()
    trainer.create_model_card()
    training = results_of(trainer)["training"]
    assert results_of(trainer)["optimizer"]["name"] == "adam_win"
    assert (training["learning_rate"], training["lr_scheduler_type"], training["precision"]) == (
        3e-3,
        "ConstantLR",
        "bf16",
    )
    assert "warmup_steps" not in training


def test_a_best_that_could_not_be_loaded(trained, tmp_path):
    """Trainer keeps the last weights then, and says so."""
    often = {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 1, "save_steps": 1}
    trainer = trained(False, learning_rate=0.5, load_best_model_at_end=True, **often)
    assert trainer.state.best_global_step < 4
    shutil.rmtree(trainer.state.best_model_checkpoint)
    trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)
    callback = next(each for each in trainer.callback_handler.callbacks if isinstance(each, WinOptCardCallback))
    callback.best = None
    callback.on_train_end(trainer.args, trainer.state, trainer.control)
    trainer.create_model_card()
    last = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry][-1]
    assert results_of(trainer)["metrics"]["evaluation"]["loss"] == last and "chosen by" not in card_of(trainer)


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
