"""What the card of a training with Trainer says."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from huggingface_hub import metadata_load
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from hf_winopt import Adam, AdamW, WinOptCardCallback
from tests.integrations.trainer_cards import card_of, is_ours, results_of

SAID = {
    "dataset_tags": "nyu-mll/glue",
    "dataset": "GLUE CoLA",
    "dataset_args": "cola",
    "tasks": "text-classification",
    "language": "en",
    "license": "mit",
    "tags": "grammar",
}


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
