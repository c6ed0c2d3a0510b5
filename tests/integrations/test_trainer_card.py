"""Trainer with one of our optimizers: whose card is written, what it says, and that a training never dies of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from huggingface_hub import metadata_load
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from hf_winopt import AdamW, WinOptCardCallback, cli
from hf_winopt.integrations import trainer_results

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
