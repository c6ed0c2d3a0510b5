"""Names that `transformers` accepts, ours and anyone's."""

import copy
import functools
import pickle
from enum import Enum

import pytest
import torch
from transformers import HfArgumentParser, Seq2SeqTrainingArguments, Trainer, TrainingArguments
from transformers.training_args import OptimizerNames

from hf_winopt import WinOptTrainingArguments, register_optimizer
from hf_winopt.integrations import names
from hf_winopt.optim import registry

OURS = [*registry.OPTIMIZERS, *registry.COMPOSED]


@pytest.mark.parametrize("name", OURS)
def test_arguments_accept_our_names(name, tmp_path):
    for arguments in (TrainingArguments, Seq2SeqTrainingArguments, WinOptTrainingArguments):
        assert arguments(output_dir=str(tmp_path), optim=name).optim == name
        (parsed,) = HfArgumentParser(arguments).parse_args_into_dataclasses(
            ["--output_dir", str(tmp_path), "--optim", name]
        )
        assert isinstance(parsed.optim, OptimizerNames) and parsed.optim == name
    changed = TrainingArguments(output_dir=str(tmp_path)).set_optimizer(name, learning_rate=0.5, args="backend=eager")
    assert (changed.optim, changed.learning_rate, changed.optim_args) == (name, 0.5, "backend=eager")
    assert changed.to_dict()["optim"] == name


def test_help_lists_our_names():
    assert set(OURS) <= set(HfArgumentParser(TrainingArguments)._option_string_actions["--optim"].choices)


def test_another_name_is_refused_with_the_list(tmp_path):
    with pytest.raises(ValueError, match=r"adamw_winn is not a valid OptimizerNames.*adafactor.*adamw_win"):
        TrainingArguments(output_dir=str(tmp_path), optim="adamw_winn")


def test_a_member_is_a_member_and_pickles_as_a_string():
    member = OptimizerNames("adamw_win")
    assert member is OptimizerNames.ADAMW_WIN is OptimizerNames["ADAMW_WIN"]
    assert member in list(OptimizerNames) and member == "adamw_win" and member.value == "adamw_win"
    assert copy.deepcopy(member) == member and copy.copy(member) == member
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert type(pickle.loads(pickle.dumps(member, protocol))) is str
    own = pickle.loads(pickle.dumps(OptimizerNames.ADAFACTOR))
    assert own is OptimizerNames.ADAFACTOR


def test_transformers_own_names_stay_its_own(monkeypatch):
    class FutureNames(str, Enum):
        ADAFACTOR = "adafactor"
        ADAN = "adan"

    monkeypatch.setattr(names, "_entries", dict(names._entries))
    theirs = FutureNames.ADAN
    names.publish(FutureNames)
    names.publish(FutureNames)
    assert FutureNames("adan") is theirs and names.lookup("adan") is None
    assert FutureNames("adan_win") == "adan_win" and names.lookup("adan_win").name == "adan_win"
    assert len(FutureNames) == len(OURS) + 1


def test_a_name_like_another_members_key_gets_its_own():
    register_optimizer("lion", torch.optim.SGD)  # LION is the key of "lion_32bit"
    assert OptimizerNames("lion").value == "lion"
    assert OptimizerNames.LION.value == "lion_32bit"


def scaled_sgd(params, lr, model, scale=1, sizes=(1, 2), *, flag: bool = False):
    assert isinstance(model, torch.nn.Module)
    optimizer = torch.optim.SGD(params, lr=lr * scale)
    optimizer.seen = (sizes, flag)
    return optimizer


class PlainSGD(torch.optim.SGD):
    pass


@pytest.mark.parametrize("kind", ["class", "function", "partial"])
def test_anyones_optimizer(kind, make_trainer):
    factory, options = {
        "class": (PlainSGD, "momentum=0.5,nesterov=true"),
        "function": (scaled_sgd, "scale=0.25,sizes=3:4,flag=1"),
        "partial": (functools.partial(torch.optim.AdamW, amsgrad=True), "betas=0.5:0.75,foreach=none"),
    }[kind]
    name = f"anyones_{kind}"
    register_optimizer(name, factory)
    trainer = make_trainer(optim=name, optim_args=options, learning_rate=0.5, adam_epsilon=1e-4, max_steps=2)
    trainer.train()
    optimizer = trainer.optimizer.optimizer
    group = optimizer.param_groups[0]
    if kind == "class":
        assert type(optimizer) is PlainSGD
        assert (group["lr"], group["momentum"], group["nesterov"]) == (0.5, 0.5, True)
    elif kind == "function":
        assert type(optimizer) is torch.optim.SGD
        assert (group["lr"], optimizer.seen) == (0.125, ((3, 4), True))
    else:
        assert (group["betas"], group["eps"], group["amsgrad"]) == ((0.5, 0.75), 1e-4, True)


def test_registering_twice():
    register_optimizer("twice", PlainSGD)
    register_optimizer("twice", PlainSGD)
    with pytest.raises(ValueError, match=r"'twice' is already registered for .*PlainSGD.*exist_ok"):
        register_optimizer("twice", torch.optim.SGD)
    assert names.lookup("twice").factory is PlainSGD
    register_optimizer("twice", torch.optim.SGD, exist_ok=True)
    assert names.lookup("twice").factory is torch.optim.SGD
    assert [member.value for member in OptimizerNames].count("twice") == 1


@pytest.mark.parametrize(
    ("name", "factory", "error", "message"),
    [
        ("adafactor", PlainSGD, ValueError, "'adafactor' is an optimizer of transformers itself"),
        ("adamw_win", PlainSGD, ValueError, "'adamw_win' is already registered"),
        ("two words", PlainSGD, ValueError, "'two words' is no optimizer name"),
        ("", PlainSGD, ValueError, "'' is no optimizer name"),
        ("no_rate", lambda params, learning_rate: None, TypeError, r"'no_rate'.*must accept \(params, lr="),
    ],
)
def test_refused_registrations(name, factory, error, message):
    with pytest.raises(error, match=message):
        register_optimizer(name, factory)


def test_transformers_own_cannot_be_replaced_either():
    with pytest.raises(ValueError, match="transformers itself"):
        register_optimizer("adamw_torch", PlainSGD, exist_ok=True)


def test_transformers_own_names_still_work(make_trainer):
    trainer = make_trainer(optim="adamw_torch", max_steps=1, adam_beta1=0.5)
    assert type(trainer.create_optimizer()) is torch.optim.AdamW
    assert trainer.optimizer.param_groups[0]["betas"] == (0.5, 0.999)


def test_a_subclass_of_trainer_inherits(make_trainer, tmp_path):
    class TheirTrainer(Trainer):
        @staticmethod
        def get_optimizer_cls_and_kwargs(args, model=None):
            kind, options = Trainer.get_optimizer_cls_and_kwargs(args, model)
            return kind, {**options, "lr": 0.125}

    args = TrainingArguments(output_dir=str(tmp_path), optim="adamw_win", use_cpu=True, report_to="none")
    optimizer = TheirTrainer(model=make_trainer().model, args=args).create_optimizer()
    assert type(optimizer) is registry.OPTIMIZERS["adamw_win"].cls
    assert optimizer.param_groups[0]["lr"] == 0.125


@pytest.mark.parametrize(
    ("written", "meant"), [("adamw_wim", "adamw_win"), ("AdamW-Win2", "adamw_win2"), ("adann", "adan")]
)
def test_an_unknown_name_comes_with_near_ones(written, meant, tmp_path):
    with pytest.raises(ValueError, match=rf"unknown optimizer '{written}'; did you mean .*\b{meant}\b.*please select"):
        TrainingArguments(str(tmp_path), optim=written)


def test_a_name_and_a_factory_in_the_other_order():
    with pytest.raises(TypeError, match="a name and a factory, in this order"):
        register_optimizer(torch.optim.SGD, "sgdw")
