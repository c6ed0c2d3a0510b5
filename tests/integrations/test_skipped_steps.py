"""Trainer and Accelerate hear of the steps that `skip_nonfinite` leaves out."""

import math

import pytest
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from transformers import TrainerCallback

from hf_winopt import AdamW, WinOptTrainingArguments, create_optimizer


class Poison(TrainerCallback):
    """Puts a NaN among the gradients of some steps."""

    def __init__(self, *steps):
        self.steps = steps

    def on_pre_optimizer_step(self, args, state, control, model, **_):
        if state.global_step in self.steps:
            next(p for p in model.parameters() if p.grad is not None).grad.view(-1)[0] = math.nan


@pytest.mark.parametrize("limit", [1.0, 0.0])  # Trainer's own clipping makes one NaN to all
def test_trainer_logs_how_many_steps_were_left_out(limit, make_trainer):
    trainer = make_trainer(optim="adamw_win", optim_args="skip_nonfinite=True", max_steps=5, max_grad_norm=limit)
    trainer.add_callback(Poison(1, 3))
    trainer.train()
    assert [log["skipped_steps"] for log in trainer.state.log_history if "loss" in log] == [0, 1, 1, 2, 2]
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())


def test_it_is_an_argument_too(make_trainer):
    trainer = make_trainer(arguments=WinOptTrainingArguments, optim="adan", skip_nonfinite=True, max_steps=2)
    trainer.train()
    assert [log["skipped_steps"] for log in trainer.state.log_history if "loss" in log] == [0, 0]


def test_without_the_option_nothing_is_logged(make_trainer):
    trainer = make_trainer(optim="adamw_win", max_steps=2)
    trainer.train()
    assert not any("skipped_steps" in log for log in trainer.state.log_history)


def test_the_schedule_of_accelerate_waits():
    accelerator = Accelerator(cpu=True)
    model = torch.nn.Linear(2, 1)
    optimizer = create_optimizer("adamw_win", model.parameters(), lr=1.0, skip_nonfinite=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1 / (1 + t))
    model, optimizer, schedule = accelerator.prepare(model, optimizer, schedule)
    rates = []
    for t in range(4):
        with accelerator.accumulate(model):
            accelerator.backward(model(torch.full((1, 2), math.nan if t == 1 else 1.0)).sum())
            optimizer.step()
            assert accelerator.optimizer_step_was_skipped is (t == 1)
            schedule.step()
            optimizer.zero_grad()
            rates.append(schedule.get_last_lr()[0])
    assert rates == [1 / 2, 1 / 2, 1 / 3, 1 / 4]


def test_accelerate_hears_of_a_step_that_a_scaler_did_not_call(monkeypatch):
    """As with the eager engine on a GPU; what the option found at the step before is no answer then."""
    Accelerator(cpu=True)
    monkeypatch.setattr(AdamW, "_step_supports_amp_scaling", False)
    p = torch.nn.Parameter(torch.ones(2))
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    optimizer = AcceleratedOptimizer(AdamW([p], skip_nonfinite=True), scaler=scaler)
    heard = []
    for bad in (None, math.inf, None):
        p.grad = torch.ones(2) if bad is None else torch.tensor([bad, 1.0])
        scaler.scale(torch.ones(()))
        optimizer.step()
        heard.append(optimizer.step_was_skipped)
    assert heard == [False, True, False]
