"""TRL's trainer for supervised fine-tuning with our names: it trains, goes on, and keeps the card that is its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import set_seed

import hf_winopt
from tests import counting
from tests.integrations.test_trainer import inner, loss_of, parameters_of
from tests.integrations.trainer_cards import card_of

trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")


@pytest.fixture
def make(tmp_path):
    """An SFTTrainer that is to learn counting; the options are fields of SFTConfig."""

    def make(**options: Any) -> Any:
        set_seed(0)
        settings = {
            "output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "report_to": "none", "disable_tqdm": True,
            "save_strategy": "no", "per_device_train_batch_size": 8, "max_length": 32, "learning_rate": 1e-2,
            "weight_decay": 0.01, "optim": "adamw_win", "max_steps": 6,
        }  # fmt: skip
        rows = datasets.Dataset.from_dict({"text": counting.lines(32)})
        return trl.SFTTrainer(
            counting.model(),
            trl.SFTConfig(**settings | options),
            train_dataset=rows,
            eval_dataset=rows,
            processing_class=counting.tokenizer(),
        )

    return make


@pytest.mark.parametrize(("name", "cls"), [("adamw_win", hf_winopt.AdamW), ("adan_win2", hf_winopt.Adan)])
def test_it_learns_with_the_options_given(name, cls, make):
    trainer = make(optim=name, optim_args="reckless_steps=3:9,backend=eager", gradient_accumulation_steps=2)
    start = loss_of(trainer)
    trainer.train()
    optimizer = inner(trainer)
    assert type(optimizer) is cls and optimizer.param_groups[0]["reckless_steps"] == (3, 9)
    assert {optimizer.state[p]["step"].item() for p in trainer.model.parameters()} == {6}
    assert loss_of(trainer) < 0.9 * start


def test_stop_and_resume_gives_the_same_bits(make, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 2, "lr_scheduler_type": "linear"}
    without_stop, resumed = make(**options), make(**options)
    without_stop.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert resumed.state.global_step == 6
    ends = parameters_of(without_stop.model), parameters_of(resumed.model)
    torch.testing.assert_close(*ends, rtol=0, atol=0)
    states = (inner(trainer).state_dict()["state"] for trainer in (without_stop, resumed))
    torch.testing.assert_close(*states, rtol=0, atol=0)


def test_the_card_is_trls(make, monkeypatch, tmp_path):
    trainer = make(max_steps=1)
    trainer.train()
    trainer.save_model()
    trainer.create_model_card(model_name="counting")
    ours_there = card_of(trainer)
    monkeypatch.setenv("HF_WINOPT_CARD", "0")
    trainer.create_model_card(model_name="counting")
    assert card_of(trainer) == ours_there and "SFT" in ours_there
    assert "hf-winopt" not in ours_there and not Path(tmp_path, "results.json").exists()
