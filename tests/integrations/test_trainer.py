"""Trainer trains with every name, and everything that Trainer does around an optimizer holds."""

import pytest
import torch
from torch import nn
from transformers import Seq2SeqTrainingArguments, TrainingArguments

from hf_winopt import WinOptTrainingArguments
from hf_winopt.optim import registry

NAMES = list(registry.OPTIMIZERS)
# AdaL and the Adam family agree on a rate; the others have their own scale.
RATES = {"lamb": 1e-2, "sgd": 1e-1, "adan": 5e-3}


def rate(name):
    return RATES.get(name.split("_")[0], 2e-3)


def parameters_of(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def loss_of(trainer):
    return trainer.evaluate(trainer.train_dataset)["eval_loss"]


def inner(trainer):
    """The optimizer without accelerate's wrapper."""
    return getattr(trainer.optimizer, "optimizer", trainer.optimizer)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_learns(name, make_trainer):
    trainer = make_trainer(optim=name, learning_rate=rate(name), weight_decay=0.01, max_steps=12)
    before, start = parameters_of(trainer.model), loss_of(trainer)
    trainer.train()
    row = registry.OPTIMIZERS[name]
    assert type(inner(trainer)) is row.cls
    for group in trainer.optimizer.param_groups:
        assert {key: group[key] for key in row.fixed} == row.fixed
    after = parameters_of(trainer.model)
    assert all(torch.isfinite(value).all() for value in after.values())
    assert [key for key in before if torch.equal(before[key], after[key])] == []
    assert loss_of(trainer) < start


@pytest.mark.parametrize("name", NAMES)
def test_stop_and_resume_gives_the_same_bits(name, make_trainer, tiny_bert, tmp_path):
    options = {
        "optim": name,
        "learning_rate": rate(name),
        "weight_decay": 0.01,
        "max_steps": 5,
        "save_steps": 2,
        "save_strategy": "steps",
        "lr_scheduler_type": "linear",
        "warmup_steps": 1,
    }
    without_stop = make_trainer(tiny_bert(dropout=0.1), **options)
    without_stop.train()
    resumed = make_trainer(tiny_bert(dropout=0.1), **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert resumed.state.global_step == 5
    first, second = parameters_of(without_stop.model), parameters_of(resumed.model)
    assert [key for key in first if not torch.equal(first[key], second[key])] == []
    states = (optimizer.state_dict()["state"] for optimizer in (inner(without_stop), inner(resumed)))
    torch.testing.assert_close(*states, rtol=0, atol=0)


@pytest.mark.parametrize("arguments", [TrainingArguments, Seq2SeqTrainingArguments, WinOptTrainingArguments])
def test_trainers_own_arguments_reach_the_groups(arguments, make_trainer):
    trainer = make_trainer(
        arguments=arguments,
        optim="adamw_win_agr",
        optim_args="reckless_steps=3:9,agr_steps=1000",
        learning_rate=3e-4,
        weight_decay=0.02,
        adam_beta1=0.8,
        adam_beta2=0.95,
        adam_epsilon=1e-5,
    )
    decayed, others = trainer.create_optimizer().param_groups
    for group in (decayed, others):
        assert (group["lr"], group["betas"], group["eps"]) == (3e-4, (0.8, 0.95), 1e-5)
        assert (group["reckless_steps"], group["agr_steps"]) == ((3, 9), 1000)
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.02, 0)
    assert all(parameter.ndim >= 2 for parameter in decayed["params"])


def test_accumulated_gradients_are_one_step(make_trainer, tiny_bert):
    def model():
        # The classifier of transformers 5 takes the number of items to divide its loss by, and ignores it.
        made = tiny_bert()
        made.accepts_loss_kwargs = False
        return made

    # With this eps the step is smooth in the gradient, so that rounding stays rounding.
    options = {"optim": "adamw_win2", "learning_rate": 1e-3, "adam_epsilon": 1e-3, "max_steps": 3}
    whole = make_trainer(model(), per_device_train_batch_size=8, **options)
    parts = make_trainer(model(), per_device_train_batch_size=2, gradient_accumulation_steps=4, **options)
    start = parameters_of(whole.model)
    whole.train()
    parts.train()
    assert parts.state.global_step == 3
    ends = parameters_of(whole.model), parameters_of(parts.model)
    torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-6)
    assert max((ends[0][key] - start[key]).abs().max() for key in start) > 1e-4


def test_gradients_are_clipped(make_trainer):
    def first_step(limit):
        trainer = make_trainer(optim="sgd_win", learning_rate=1.0, max_steps=1, max_grad_norm=limit)
        before = parameters_of(trainer.model)
        trainer.train()
        after = parameters_of(trainer.model)
        return {key: after[key] - before[key] for key in before}, trainer.state.log_history[0]["grad_norm"]

    free, norm = first_step(1e9)
    clipped, _ = first_step(norm / 10)
    # The first step of SGD is proportional to the gradient.
    totals = [sum(move.double().square().sum() for move in moves.values()).sqrt() for moves in (free, clipped)]
    assert totals[0] / totals[1] == pytest.approx(10, rel=1e-3)


def test_max_steps_goes_round_the_data(make_trainer):
    trainer = make_trainer(optim="adan_win", max_steps=9)  # 4 batches an epoch
    trainer.train()
    assert trainer.state.global_step == 9


class LowRank(nn.Module):
    """A frozen linear layer and what LoRA adds to it."""

    def __init__(self, frozen, rank=2):
        super().__init__()
        self.frozen = frozen
        self.down = nn.Linear(frozen.in_features, rank, bias=False)
        self.up = nn.Linear(rank, frozen.out_features, bias=False)

    def forward(self, inputs):
        return self.frozen(inputs) + self.up(self.down(inputs))


@pytest.mark.parametrize("name", ["adamw_win2_agr", "lamb_win", "adan_win"])
def test_frozen_parameters_stay(name, make_trainer, tiny_bert):
    model = tiny_bert().requires_grad_(False)
    for layer in model.bert.encoder.layer:
        attention = layer.attention.self
        attention.query, attention.value = LowRank(attention.query), LowRank(attention.value)
    model.classifier.requires_grad_(True)
    trainer = make_trainer(model, optim=name, learning_rate=rate(name), weight_decay=0.01, max_steps=4)
    before = parameters_of(model)
    trainer.train()
    after = parameters_of(model)
    trained = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {key for key in before if not torch.equal(before[key], after[key])}
    assert len(inner(trainer).state) == len(trained)
