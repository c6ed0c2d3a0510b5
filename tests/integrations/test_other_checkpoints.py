"""Trainer goes on from a checkpoint: of another optimizer it is refused, of the same with other numbers it is said."""

import logging

import pytest

from tests.integrations.test_trainer import inner


def checkpoint_of(make_trainer, tmp_path, **options):
    trainer = make_trainer(save_strategy="steps", save_steps=2, max_steps=2, **options)
    trainer.train()
    return str(tmp_path / "checkpoint-2")


@pytest.mark.parametrize(("theirs", "rate", "who"), [
    ("sgd", 0.1, "SGD"), ("adagrad", 0.1, "Adagrad"), ("rmsprop", 0.01, "RMSprop"), ("adafactor", 1e-3, "Adafactor"),
])  # fmt: skip
def test_of_another_optimizer(theirs, rate, who, make_trainer, tmp_path):
    """At SGD's rate AdamW-Win would have gone astray, from moments of zero, without a word."""
    folder = checkpoint_of(make_trainer, tmp_path, optim=theirs, learning_rate=rate)
    trainer = make_trainer(optim="adamw_win", learning_rate=1e-4, max_steps=4)
    with pytest.raises(
        ValueError, match=f"written by another optimizer, by its look {who}.*--model_name_or_path CHECKPOINT"
    ):
        trainer.train(resume_from_checkpoint=folder)


def test_of_adamw_it_goes_on(make_trainer, tmp_path):
    folder = checkpoint_of(make_trainer, tmp_path, optim="adamw_torch", learning_rate=1e-3)
    trainer = make_trainer(optim="adamw_win", learning_rate=1e-3, max_steps=4)
    trainer.train(resume_from_checkpoint=folder)
    assert all(state["step"].item() == 4 for state in inner(trainer).state.values())


@pytest.mark.parametrize(("before", "after"), [(0.0, 0.1), (0.1, 0.0)])
def test_a_new_weight_decay_that_is_not_used_is_said(before, after, make_trainer, tmp_path, caplog):
    folder = checkpoint_of(make_trainer, tmp_path, optim="adamw_win", weight_decay=before, learning_rate=1e-3)
    trainer = make_trainer(optim="adamw_win", weight_decay=after, learning_rate=1e-4, adam_beta2=0.9, max_steps=4)
    with caplog.at_level(logging.WARNING, "hf_winopt"):
        trainer.train(resume_from_checkpoint=folder)
    said = [record.getMessage() for record in caplog.records if "is not used" in record.getMessage()]
    assert len(said) == 3
    for option, given, stays in (("weight_decay", after, before), ("learning_rate", 1e-4, 1e-3),
                                 ("betas", (0.9, 0.9), (0.9, 0.999))):  # fmt: skip
        (line,) = [each for each in said if each.startswith(option)]
        assert line == (
            f"{option} {given!r} is not used: training goes on from a checkpoint, and the numbers of its optimizer "
            f"stay, here {stays!r}"
        )
    assert {group["weight_decay"] for group in inner(trainer).param_groups} == {before, 0.0}


def test_nothing_is_said_where_nothing_differs(make_trainer, tmp_path, caplog):
    options = {"optim": "adamw_win_agr", "optim_args": "agr_stop_ratio=0.5", "weight_decay": 0.1, "learning_rate": 1e-3,
               "lr_scheduler_type": "linear"}  # fmt: skip
    folder = checkpoint_of(make_trainer, tmp_path, **options)
    with caplog.at_level(logging.WARNING, "hf_winopt"):
        make_trainer(max_steps=4, **options).train(resume_from_checkpoint=folder)
        make_trainer(max_steps=2, **options | {"weight_decay": 0.3}).train()  # from its beginning
    assert "is not used" not in caplog.text


def test_optim_args_may_be_a_dict(make_trainer):
    trainer = make_trainer(
        optim="adamw_win_agr", optim_args={"reckless_steps": [3, 9], "agr_steps": 7, "weight_decay_gamma": "0.5"}
    )
    group = trainer.create_optimizer().param_groups[0]
    assert (group["reckless_steps"], group["agr_steps"], group["weight_decay_gamma"]) == ((3, 9), 7, 0.5)
    with pytest.raises(ValueError, match="optim_args: adamw_win has no option wieght"):
        make_trainer(optim="adamw_win", optim_args={"wieght": 1}).create_optimizer()
    with pytest.raises(ValueError, match=r"optim_args must be a text .*or a dict; got \['eps'\]"):
        make_trainer(optim="adamw_win", optim_args=["eps"]).create_optimizer()


def test_yamls_1e_3_is_a_text_and_that_is_said(make_trainer):
    with pytest.raises(ValueError, match=r"lr must be .*got '1e-3', a text \(which YAML takes 1e-3 for; write 1.0e-3"):
        make_trainer(optim="adamw_win", learning_rate="1e-3").create_optimizer()
    options = make_trainer(optim="adamw_win", optim_args={"eps": "1e-6"})  # as a YAML file gives it
    assert options.create_optimizer().param_groups[0]["eps"] == 1e-6
