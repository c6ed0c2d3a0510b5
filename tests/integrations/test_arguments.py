"""The options as typed arguments."""

import dataclasses
import logging

import pytest
from transformers import HfArgumentParser, Seq2SeqTrainingArguments, Trainer, TrainingArguments

from hf_winopt import WinOptArguments, WinOptTrainingArguments


@dataclasses.dataclass
class FirstArguments(WinOptArguments, Seq2SeqTrainingArguments):
    """Mixed in by a user, first."""


@dataclasses.dataclass
class LastArguments(Seq2SeqTrainingArguments, WinOptArguments):
    """Mixed in by a user, last."""


ALL = [WinOptTrainingArguments, FirstArguments, LastArguments]


def parse(arguments, line):
    (parsed,) = HfArgumentParser(arguments).parse_args_into_dataclasses(["--output_dir", "out", *line.split()])
    return parsed


def made_with(args):
    return Trainer.get_optimizer_cls_and_kwargs(args)[1]


@pytest.mark.parametrize("arguments", ALL)
def test_command_line(arguments):
    args = parse(
        arguments,
        "--optim adamw_win_agr --reckless_steps 2 8 --agr_stop_ratio 0.83 --weight_decay_gamma 0.99999 "
        "--optim_backend compile --optim-decay proximal",
    )
    assert args.agr_stop_ratio == 0.83
    assert made_with(args) == {
        "lr": 5e-5,
        "weight_decay": 0.0,
        "acceleration": "win",
        "agr": True,
        "reckless_steps": (2.0, 8.0),
        "weight_decay_gamma": 0.99999,
        "backend": "compile",
        "decay": "proximal",
    }


def test_what_only_some_optimizers_have():
    sgd = made_with(parse(WinOptTrainingArguments, "--optim sgd_win --momentum 0.8 --dampening 0 --nesterov"))
    assert (sgd["momentum"], sgd["dampening"], sgd["nesterov"]) == (0.8, 0.0, True)
    adan = made_with(parse(WinOptTrainingArguments, "--optim adan --adan_betas .9 .8 .7 --restart_every 50"))
    assert (adan["betas"], adan["restart_every"]) == ((0.9, 0.8, 0.7), 50)
    assert made_with(parse(WinOptTrainingArguments, "--optim lamb --always_adapt"))["always_adapt"] is True
    assert made_with(parse(WinOptTrainingArguments, "--optim adal --inverse_sqrt_lr no"))["inverse_sqrt_lr"] is False


def test_nothing_given_is_nothing_said():
    args = parse(WinOptTrainingArguments, "--optim adamw_win")
    assert args.optimizer_options() == {}
    assert made_with(args) == {"lr": 5e-5, "weight_decay": 0.0, "acceleration": "win"}


@pytest.mark.parametrize(
    ("optim", "option", "message"),
    [
        (
            "adamw_win",
            {"momentum": 0.9},
            "momentum: adamw_win has no option momentum. It takes: .*reckless_steps",
        ),
        ("adal", {"agr_stop_ratio": 0.5}, "adal has no option agr_stop_ratio"),
        (
            "adamw_win",
            {"adan_betas": [0.9, 0.8, 0.7]},
            "betas of adamw_win, by adan_betas: 0.9 0.8 0.7 is not 2 values",
        ),
        ("adamw_win", {"reckless_steps": [2, 8, 9]}, "reckless_steps of adamw_win.*2 8 9 is not 2 values"),
        ("adamw_win_agr", {"agr_stop_ratio": 1.5}, "agr_stop_ratio must be above 0 and at most 1, not 1.5"),
        ("adamw_win_agr", {"agr_stop_ratio": 0.0}, "agr_stop_ratio must be above 0 and at most 1, not 0.0"),
        (
            "adamw_win_agr",
            {"agr_stop_ratio": 0.5, "agr_steps": 5},
            "agr_stop_ratio and agr_steps say the same",
        ),
        ("adamw_win", {"reckless_steps": [2, -8]}, "reckless_steps must be two finite numbers > 0"),
        ("adamw_win", {"optim_decay": "decoupled"}, "decoupled"),
        ("adan", {"optim_backend": "magic"}, "backend must be one of .*'magic'"),
    ],
)
def test_options_are_refused_early(optim, option, message, tmp_path, make_trainer):
    with pytest.raises(ValueError, match=message):
        FirstArguments(output_dir=str(tmp_path), optim=optim, **option)
    late = LastArguments(output_dir=str(tmp_path), optim=optim, **option)  # TrainingArguments asks nobody further
    with pytest.raises(ValueError, match=message):
        make_trainer(arguments=lambda **others: late).create_optimizer()


def test_with_transformers_own_optimizer_they_are_ignored_aloud(tmp_path, caplog):
    args = WinOptTrainingArguments(output_dir=str(tmp_path), optim="adamw_torch", momentum=0.5, agr_steps=3)
    with caplog.at_level(logging.WARNING):
        options = made_with(args)
    assert "momentum" not in options
    assert "ignored, since optim=adamw_torch is an optimizer of transformers itself: agr_steps, momentum" in caplog.text


def test_fields_belong_to_nobody_else():
    ours = {field.name for field in dataclasses.fields(WinOptArguments)}
    assert ours.isdisjoint(field.name for field in dataclasses.fields(Seq2SeqTrainingArguments))


def test_every_field_has_a_help_text():
    text = " ".join(HfArgumentParser(WinOptTrainingArguments).format_help().split())
    for field in dataclasses.fields(WinOptArguments):
        assert f"--{field.name}" in text
        assert " ".join(field.metadata["help"].split()) in text


def test_they_also_stand_alone():
    options, others = HfArgumentParser((WinOptArguments, TrainingArguments)).parse_args_into_dataclasses(
        ["--output_dir", "out", "--adan_betas", ".9", ".8", ".7", "--optim_backend", "eager"]
    )
    assert options.optimizer_options() == {"betas": [0.9, 0.8, 0.7], "backend": "eager"}
    assert isinstance(others, TrainingArguments)


def test_secrets_stay_out_of_the_printed_arguments(tmp_path):
    args = WinOptTrainingArguments(output_dir=str(tmp_path), hub_token="hf_private", reckless_steps=[2, 8])
    assert "hf_private" not in repr(args) and "reckless_steps=[2, 8]" in repr(args)
    assert "hf_private" not in args.to_json_string()


@pytest.mark.parametrize("said", ["typed", "text"])
def test_the_ratio_becomes_steps(said, make_trainer):
    option = {"agr_stop_ratio": 0.83} if said == "typed" else {"optim_args": "agr_stop_ratio=0.83"}
    trainer = make_trainer(
        arguments=WinOptTrainingArguments,
        optim="adamw_win_agr",
        num_train_epochs=3,
        optim_backend="eager",
        **option,
    )
    trainer.train()
    assert trainer.state.max_steps == 12
    assert [group["agr_steps"] for group in trainer.optimizer.param_groups] == [10, 10]
