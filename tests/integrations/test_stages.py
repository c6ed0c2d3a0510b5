"""The staged learning rate, by itself and as a Trainer schedule."""

import itertools

import pytest
import torch
from transformers import HfArgumentParser, TrainingArguments
from transformers.optimization import get_scheduler

import hf_winopt  # noqa: F401  what makes transformers know the name
from hf_winopt.integrations.stages import get_staged_schedule, stage_factor


def test_each_stage_halves_the_rate_and_doubles_the_steps():
    factors = [stage_factor(step, 150) for step in range(160)]
    lengths = [(rate, len(list(steps))) for rate, steps in itertools.groupby(factors)]
    assert lengths == [(1.0, 10), (0.5, 20), (0.25, 40), (0.125, 80 + 10)]  # what goes beyond is of the last stage


def test_the_root_begins_anew_with_each_stage():
    factors = [stage_factor(step, 6, stages=2, within="inverse_sqrt") for step in range(6)]
    expected = [1, 2**-0.5, 0.5, 0.5 * 2**-0.5, 0.5 * 3**-0.5, 0.5 * 4**-0.5]
    assert factors == pytest.approx(expected)


@pytest.mark.parametrize("steps", [1, 2, 7, 1000])
def test_it_never_rises_and_few_steps_do_not_break_it(steps):
    factors = [stage_factor(step, steps) for step in range(steps)]
    assert all(a >= b > 0 for a, b in itertools.pairwise(factors))


def test_the_warmup_comes_before():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = get_staged_schedule(optimizer, 2, 2 + 3, stages=2)
    rates = []
    for _ in range(5):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates == [0.0, 0.5, 1.0, 0.5, 0.5]


@pytest.mark.parametrize(("name", "value"), [("stages", 0), ("stages", 1.5), ("within", "linear")])
def test_bad_values_are_refused(name, value):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(ValueError, match=rf"{name} must be .*; got {value!r}"):
        get_staged_schedule(optimizer, 0, 10, **{name: value})


def test_trainer_takes_it_by_name(make_trainer):
    options = {"stages": 2, "within": "constant"}
    trainer = make_trainer(
        optim="adamw_d", learning_rate=1e-3, lr_scheduler_type="staged", lr_scheduler_kwargs=options, max_steps=6
    )
    trainer.train()
    rates = [log["learning_rate"] for log in trainer.state.log_history if "learning_rate" in log]
    assert rates == pytest.approx([1e-3] * 2 + [5e-4] * 4)


def test_the_command_line_and_get_scheduler_take_it_too(tmp_path):
    (args,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses(
        ["--output_dir", str(tmp_path), "--lr_scheduler_type", "staged", "--use_cpu", "true"]
    )
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = get_scheduler(args.lr_scheduler_type, optimizer, num_warmup_steps=0, num_training_steps=30)
    assert schedule.get_last_lr() == [1.0]


def test_a_training_goes_on_in_its_stage(make_trainer, tiny_bert, tmp_path):
    options = {
        "optim": "adam_l2_d", "learning_rate": 1e-3, "weight_decay": 0.01, "lr_scheduler_type": "staged",
        "lr_scheduler_kwargs": {"stages": 3, "within": "inverse_sqrt"}, "max_steps": 7, "save_steps": 4,
        "save_strategy": "steps",
    }  # fmt: skip
    whole = make_trainer(tiny_bert(), **options)
    whole.train()
    resumed = make_trainer(tiny_bert(), **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    for a, b in zip(whole.model.parameters(), resumed.model.parameters()):
        assert torch.equal(a, b)
