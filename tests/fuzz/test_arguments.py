"""Arguments: what is good trains, what is bad is refused by its name and value, and then nothing has changed."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_winopt import OPTIMIZERS, create_optimizer
from hf_winopt.optim import RuleOptimizer
from tests.fuzz.options import ALLOWED, NAMES, bad, chosen, option_of_a_name
from tests.fuzz.parameters import NO_GROUPS, NO_PARAMETERS, optimizers
from tests.fuzz.tally import Outcome, counted
from tests.fuzz.training import all_finite, gradient, same, snapshot, train

REFUSAL = (ValueError, TypeError)


def step_some(data: st.DataObject, optimizer: RuleOptimizer, scale: float) -> None:
    """A step in which some have no gradient; those stay as they are, all in one left out, and the gradients always."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for i, p in enumerate(params):
        p.grad = None
        if p.requires_grad and data.draw(st.sampled_from([True, True, False])):
            p.grad = gradient(p, scale, i)
    before = snapshot(optimizer)
    optimizer.step()
    after = snapshot(optimizer)
    for untouched in ("identities", "strides", "grads", "groups", "defaults"):
        assert same(before[untouched], after[untouched])
    for p, was, g in zip(params, before["params"], before["grads"]):
        assert (p.dtype, p.shape) == (was.dtype, was.shape)
        if g is None or optimizer.step_was_skipped:
            assert same(p, was) and same(before["state"].get(id(p)), after["state"].get(id(p)))
        else:
            assert 1 <= optimizer.state[p]["step"].item() <= 3


@given(st.data(), NAMES, st.sampled_from([0.0, 1e-6, 1.0, 1e3]))
@counted
def test_good_arguments_train_and_all_stays_finite(data: st.DataObject, name: str, scale: float) -> Outcome:
    optimizer = data.draw(optimizers(name))
    for _ in range(3):
        step_some(data, optimizer, scale)
    assert all_finite(optimizer)
    return "trained"


@given(st.data(), NAMES, st.sampled_from([0.0, 1e-45, 1e-20, 1.0, 1e20, 3e37]))
@counted
def test_extreme_arguments_are_mere_arithmetic(data: st.DataObject, name: str, scale: float) -> Outcome:
    """Numbers may overflow to what is not finite, as floats do. Nothing is raised, and no other parameter touched."""
    optimizer = data.draw(optimizers(name, "allowed"))
    for _ in range(3):
        step_some(data, optimizer, scale)
    return "trained"


@given(st.data(), NAMES)
@counted
def test_an_int_is_the_float_of_its_value(data: st.DataObject, name: str) -> Outcome:
    numbers = {"lr": 1, "eps": 1, "weight_decay": 1, "momentum": 0, "dampening": 0, "max_grad_norm": 2,
               "weight_decay_gamma": 1, "betas": (0,) * 3 if "adan" in name else (0, 0)}  # fmt: skip
    options = {k: v for k, v in numbers.items() if k in OPTIMIZERS[name].options and data.draw(st.booleans())}
    floats = {k: tuple(map(float, v)) if isinstance(v, tuple) else float(v) for k, v in options.items()}
    snapshots = []
    for given_options in (options, floats):
        p = torch.nn.Parameter(torch.tensor([[1.0, -2.0], [0.5, 3.0]]))
        optimizer = create_optimizer(name, [p], **given_options)
        for scale in (1e9, 1e-3):
            train(optimizer, 1, scale)
        snapshots.append([p.detach().clone(), dict(optimizer.state[p])])
    assert same(*snapshots)
    return "trained"


@given(st.data(), option_of_a_name())
@counted
def test_a_bad_value_is_refused_by_name(data: st.DataObject, case: tuple[str, str]) -> Outcome:
    option, name = case
    value, others = data.draw(bad(name, option)), data.draw(chosen(name))
    p = torch.nn.Parameter(torch.ones(2, 3))
    ways = ["keyword", "class", *(["group", "added"] if option != "backend" else [])]
    way = data.draw(st.sampled_from(ways))
    others.pop(option, None)
    if option in ("momentum", "dampening"):
        others.pop("nesterov", None)
    row = OPTIMIZERS[name]
    optimizer = create_optimizer(name, [p], **others)
    train(optimizer)
    before = snapshot(optimizer)
    with pytest.raises(REFUSAL) as refusal:
        if way == "keyword":
            create_optimizer(name, [p], **{**others, option: value})
        elif way == "class":
            row.cls([p], **{**row.defaults, **row.fixed, **others, option: value})
        elif way == "group":
            create_optimizer(name, [{"params": [p], option: value}], **others)
        else:
            optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(3))], option: value})
    assert_says(str(refusal.value), option, value)
    assert same(before, snapshot(optimizer))
    train(optimizer)
    assert all_finite(optimizer)
    return "refused"


def assert_says(message: str, option: str, value: object) -> None:
    """The name and the value; of a tensor of one element, that element."""
    assert option in message
    words = [repr(value), repr(as_pythons(value))]
    if isinstance(value, torch.Tensor) and value.numel() == 1 and not value.is_meta:
        words.append(repr(value.item()))
    assert any(f"got {each}" in message or f"{option}={each}" in message for each in words)


def as_pythons(value: object) -> object:
    """numpy's numbers, which are shown as what they become."""
    if isinstance(value, (tuple, list)):
        return type(value)(map(as_pythons, value))
    return value.item() if isinstance(value, np.generic) else value


TOGETHER = st.sampled_from(
    [
        ("adamw_win", {"decay": "decoupled"}),
        ("lamb_win2", {"decay": "decoupled"}),
        ("sgd_win", {"nesterov": True, "momentum": 0}),
        ("sgd_win2", {"nesterov": True, "dampening": 0.1}),
        ("adamw_agr", {"agr": False}),
        ("adan_win", {"acceleration": "win2"}),
        ("adam_l2", {"decay": "proximal"}),
        ("adal", {"agr": True}),
        ("adan", {"momentum": 0.9}),
        ("adamw_win", {"weight_dcay": 0.1}),
        ("adamwin", {}),
        ("", {}),
        (None, {}),
        (3, {}),
        (["adamw_win"], {}),
    ]
)


@given(TOGETHER)
@counted
def test_what_does_not_go_together_is_refused(case: tuple[str, dict[str, object]]) -> Outcome:
    name, options = case
    p = torch.nn.Parameter(torch.ones(2, 3))
    with pytest.raises(REFUSAL) as refusal:
        create_optimizer(name, [p], **options)
    for word in options or [repr(name)]:
        assert word in str(refusal.value)
    assert torch.equal(p, torch.ones(2, 3))
    return "refused"


@given(st.data(), NAMES)
@counted
def test_parameters_that_cannot_be_trained_are_refused(data: st.DataObject, name: str) -> Outcome:
    optimizer = data.draw(optimizers(name))
    train(optimizer)
    before = snapshot(optimizer)
    with warnings.catch_warnings(), pytest.raises(REFUSAL, match=r"param|Tensor"):
        warnings.simplefilter("ignore")  # torch warns of what we refuse
        if data.draw(st.booleans()):
            create_optimizer(name, NO_PARAMETERS[data.draw(st.sampled_from(list(NO_PARAMETERS)))]())
        else:
            optimizer.add_param_group(NO_GROUPS[data.draw(st.sampled_from(list(NO_GROUPS)))]())
    assert same(before, snapshot(optimizer))
    train(optimizer)
    assert all_finite(optimizer)
    return "refused"


def test_every_option_has_values_here() -> None:
    """An option that is new must be fuzzed too."""
    options = {option for row in OPTIMIZERS.values() for option in row.options} - {"betas"}
    assert options == {*ALLOWED, "acceleration", "decay", "agr"}
