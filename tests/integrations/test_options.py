"""What the arguments say, as the optimizer hears it."""

import logging
from inspect import Parameter
from typing import Any, Literal, Optional

import pytest
from transformers import TrainingArguments

from hf_winopt import WinOptTrainingArguments
from hf_winopt.integrations import names, parsing
from hf_winopt.integrations.names import Entry
from hf_winopt.integrations.options import optimizer_kwargs


@pytest.fixture
def kwargs(tmp_path):
    """The keyword arguments of a name under TrainingArguments."""

    def make(optim, arguments=TrainingArguments, **options):
        args = arguments(output_dir=str(tmp_path), optim=optim, **options)
        return optimizer_kwargs(names.lookup(optim), args)

    return make


def test_untouched_arguments_leave_the_optimizers_defaults(kwargs):
    assert kwargs("adamw_win") == {"lr": 5e-5, "weight_decay": 0.0, "acceleration": "win"}
    assert kwargs("adamw_d")["weight_decay_gamma"] == 0.99999
    for name in ("lamb", "adan"):  # whose eps and betas are not Trainer's
        assert kwargs(name).keys().isdisjoint({"eps", "betas"})


def test_adam_arguments_count_where_they_were_touched(kwargs):
    assert kwargs("adamw_win", adam_beta2=0.98)["betas"] == (0.9, 0.98)
    assert kwargs("lamb", adam_epsilon=1e-7)["eps"] == 1e-7
    assert kwargs("lamb", optim_args="eps=1e-8")["eps"] == 1e-8  # Trainer's default, said aloud
    assert "eps" not in kwargs("sgd_win", adam_epsilon=1e-7)


def test_adan_has_its_own_betas(kwargs, caplog):
    with caplog.at_level(logging.WARNING):
        assert "betas" not in kwargs("adan", adam_beta1=0.8)
    assert "adam_beta1 and adam_beta2 do not reach adan" in caplog.text
    assert 'optim_args="betas=0.98:0.92:0.99"' in caplog.text
    assert kwargs("adan", optim_args="betas=0.9:0.8:0.7")["betas"] == (0.9, 0.8, 0.7)


def test_options_are_typed(kwargs):
    text = " reckless_steps=2:8, agr_steps=1000 ,weight_decay_gamma=1e-3,agr=True,decay=none,backend=eager"
    made = kwargs("adamw_win", optim_args=text)
    assert made["reckless_steps"] == (2.0, 8.0)
    assert made["agr_steps"] == 1000 and type(made["agr_steps"]) is int
    assert made["weight_decay_gamma"] == 1e-3
    assert made["agr"] is True and made["decay"] is None and made["backend"] == "eager"


def test_what_a_name_presets_can_be_changed_and_what_it_means_cannot(kwargs):
    assert kwargs("adamw_d", optim_args="weight_decay_gamma=0.5")["weight_decay_gamma"] == 0.5
    assert kwargs("adamw_win", optim_args="acceleration=win")["acceleration"] == "win"
    with pytest.raises(ValueError, match=r"acceleration cannot be both 'win' \(the name adamw_win\) and 'none'"):
        kwargs("adamw_win", optim_args="acceleration=none")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("reckless_step=2:8", "adamw_win has no option reckless_step; did you mean reckless_steps"),
        (
            "momentum=0.9",
            "adamw_win has no option momentum. It takes: .*agr_steps, agr_stop_ratio, .*reckless_steps",
        ),
        (
            "reckless_steps=2",
            "reckless_steps of adamw_win, by optim_args: '2' is not 2 values separated by ':'",
        ),
        ("reckless_steps=2:eight", "'2:eight' is not 2 values"),
        ("betas=0.9:0.9:0.9", "betas of adamw_win, by optim_args: '0.9:0.9:0.9' is not 2 values"),
        ("agr=yes", "'yes' is not true or false"),
        ("agr_steps=1.5", "'1.5' is not a whole number"),
        ("eps=small", "'small' is not a number"),
        ("eps", "'eps' is not of the form key=value, in 'eps'"),
        ("eps=1e-8,", "'' is not of the form key=value"),
        ("agr=1,a=b=c", "'a=b=c' is not of the form key=value"),
        ("eps=", "'eps=' is not of the form key=value"),
        ("eps=1,eps=2", "eps is given twice"),
        ("lr=1", "lr is what Trainer's own argument learning_rate sets"),
        ("weight_decay=1", "weight_decay is what Trainer's own argument weight_decay sets"),
        ("agr=1,agr_steps=3,agr_stop_ratio=0.5", "agr_stop_ratio and agr_steps say the same thing"),
    ],
)
def test_bad_options_are_refused_by_name(kwargs, text, message):
    with pytest.raises(ValueError, match=message):
        kwargs("adamw_win", optim_args=text)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("adamw_win", "agr_steps=5", "agr_steps (optim_args) has no effect on adamw_win, where agr is False"),
        ("adamw_win", "agr_stop_ratio=0.5", "agr_stop_ratio (optim_args) has no effect on adamw_win"),
        ("lamb", "reckless_steps=2:9", "reckless_steps (optim_args) has no effect on lamb, where acceleration is"),
    ],
)
def test_options_without_effect_are_named_and_left_out(kwargs, caplog, name, text, message):
    with caplog.at_level("WARNING"):
        assert text.split("=")[0] not in kwargs(name, optim_args=text)
    assert message in caplog.text


def test_two_places_must_agree(kwargs):
    def both(**options):
        return kwargs("adamw_win", arguments=WinOptTrainingArguments, **options)

    assert both(reckless_steps=[3, 7], optim_args="reckless_steps=3:7")["reckless_steps"] == (3, 7)
    with pytest.raises(ValueError, match=r"\(3.0, 8.0\) \(optim_args\) and \(3, 7\) \(reckless_steps\)"):
        both(reckless_steps=[3, 7], optim_args="reckless_steps=3:8")
    with pytest.raises(ValueError, match=r"betas cannot be both .*adam_beta1 and adam_beta2.*optim_args"):
        both(adam_beta1=0.8, optim_args="betas=0.7:0.999")


def test_trainers_defaults_fill_what_a_factory_requires(tmp_path):
    def factory(params, lr, betas, eps, **others):
        raise NotImplementedError

    args = TrainingArguments(output_dir=str(tmp_path), optim_args="anything=1:2,word=text,flag=true,number=1e3")
    assert optimizer_kwargs(Entry("required", factory), args) == {
        "lr": 5e-5,
        "betas": (0.9, 0.999),
        "eps": 1e-8,
        "anything": (1, 2),
        "word": "text",
        "flag": True,
        "number": 1000.0,
    }


@pytest.mark.parametrize(
    ("hint", "default", "text", "value"),
    [
        (float, 0.1, "1e-3", 1e-3),
        (bool, False, "0", False),
        (str, "", "1", "1"),
        (int | None, None, "None", None),
        (str | int, "", "7", 7),
        (str | int, "", "seven", "seven"),
        (Optional[tuple[float, float]], None, "1:2", (1.0, 2.0)),  # noqa: UP045  both spellings exist
        (tuple[int, ...], (), "1:2:3", (1, 2, 3)),
        (list[str], None, "a:b", ("a", "b")),
        (Literal["fast", 2], 2, "2", 2),
        (Any, None, "1:2", (1, 2)),
        ("Unresolved", True, "false", False),
        (Parameter.empty, 0, "0.5", 0.5),
        (Parameter.empty, 1.5, "2", 2.0),
        (Parameter.empty, (0.9, 0.99), "0.5:1", (0.5, 1)),
        (Parameter.empty, None, "a:b", "a:b"),
        (Parameter.empty, None, "none", None),
    ],
)
def test_texts_and_hints(hint, default, text, value):
    made = parsing.from_text(text, Parameter("it", Parameter.KEYWORD_ONLY, annotation=hint, default=default))
    assert made == value and type(made) is type(value)


@pytest.mark.parametrize(
    ("hint", "text", "message"),
    [
        (Literal["fast", "slow"], "medium", "'medium' is not one of fast, slow"),
        (int | None, "x", "'x' is not a whole number or none"),
        (tuple[float, float] | None, "1", "'1' is not 2 values or none separated by ':'"),
        (list[int], "1:x", "'1:x' is not a list"),
    ],
)
def test_texts_that_do_not_fit(hint, text, message):
    with pytest.raises(ValueError, match=message):
        parsing.from_text(text, Parameter("it", Parameter.KEYWORD_ONLY, annotation=hint))
