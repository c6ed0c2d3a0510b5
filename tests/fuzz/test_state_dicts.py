"""State dicts: what is malformed is refused and changes nothing, all else trains on; ours, others' and torch's."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import Parameter

from hf_winopt import create_optimizer
from hf_winopt.optim import RuleOptimizer
from tests.fuzz.options import NAMES, chosen
from tests.fuzz.states import HARMLESS, REFUSED
from tests.fuzz.tally import Outcome, counted
from tests.fuzz.training import all_finite, gradient, same, snapshot, train

DTYPES = st.sampled_from([torch.float32, torch.float64, torch.bfloat16])


def three(dtype: torch.dtype = torch.float32) -> list[Parameter]:
    shapes = ((3, 2), (4,), ())
    return [Parameter(gradient(torch.empty(shape, dtype=dtype), 1.0, i)) for i, shape in enumerate(shapes)]


def trained(name: str, dtype: torch.dtype, options: dict[str, Any]) -> RuleOptimizer:
    """Two groups, stepped twice."""
    params = three(dtype)
    optimizer = create_optimizer(name, [{"params": params[:2]}, {"params": params[2:]}], **options)
    train(optimizer)
    return optimizer


@given(st.data(), NAMES, DTYPES, st.sampled_from(REFUSED))
@counted
def test_a_malformed_state_dict_is_refused(data: st.DataObject, name: str, dtype: torch.dtype, spoil: Any) -> Outcome:
    optimizer = trained(name, dtype, data.draw(chosen(name)))
    malformed = spoil(data.draw, name, copy.deepcopy(optimizer.state_dict()))
    before = snapshot(optimizer)
    with pytest.raises(ValueError, match=r"state_dict|must be .*; got "):
        optimizer.load_state_dict(malformed)
    assert same(before, snapshot(optimizer))
    train(optimizer)
    assert all_finite(optimizer)
    return "refused"


@given(st.data(), NAMES, DTYPES, st.lists(st.sampled_from(HARMLESS), max_size=3, unique=True))
@counted
def test_what_differs_without_being_wrong_trains(
    data: st.DataObject, name: str, dtype: torch.dtype, changes: list[Any]
) -> Outcome:
    options = data.draw(chosen(name))
    state_dict = copy.deepcopy(trained(name, dtype, options).state_dict())
    for change in sorted(changes, key=HARMLESS.index):
        state_dict = change(data.draw, name, state_dict)
    other = trained(name, dtype, options if data.draw(st.booleans()) else {})
    before = snapshot(other)
    kept = copy.deepcopy(state_dict)
    other.load_state_dict(state_dict)
    assert same(before["params"], snapshot(other)["params"])
    train(other)
    assert all_finite(other)
    assert same(kept, state_dict), "what was loaded is the caller's own"
    return "trained"


@given(st.data(), NAMES, NAMES, DTYPES)
@counted
def test_state_of_another_of_ours(data: st.DataObject, name: str, other_name: str, dtype: torch.dtype) -> Outcome:
    state_dict = trained(other_name, dtype, data.draw(chosen(other_name))).state_dict()
    return refused_or_trains(trained(name, dtype, data.draw(chosen(name))), state_dict)


def refused_or_trains(optimizer: RuleOptimizer, state_dict: Any) -> Outcome:
    before = snapshot(optimizer)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*amsgrad")
            optimizer.load_state_dict(state_dict)
    except ValueError as refusal:
        assert "must " in str(refusal) and "got " in str(refusal)
        outcome: Outcome = "refused"
        assert same(before, snapshot(optimizer))
    else:
        outcome = "trained"
        assert same(before["params"], snapshot(optimizer)["params"])
    train(optimizer)
    assert all_finite(optimizer)
    return outcome


TORCHS: dict[str, dict[str, Any]] = {
    "Adadelta": {}, "Adafactor": {}, "Adagrad": {}, "Adam": {"amsgrad": True}, "AdamW": {"capturable": False},
    "Adamax": {}, "ASGD": {}, "LBFGS": {}, "NAdam": {"decoupled_weight_decay": True}, "RAdam": {},
    "RMSprop": {"momentum": 0.9, "centered": True}, "Rprop": {}, "SGD": {"momentum": 0.9, "nesterov": True},
}  # fmt: skip


@given(st.data(), NAMES, st.sampled_from(list(TORCHS)), DTYPES, st.booleans())
@counted
def test_state_of_torchs(data: st.DataObject, name: str, theirs: str, dtype: torch.dtype, plain: bool) -> Outcome:
    params = three(dtype)
    source = getattr(torch.optim, theirs)(params, lr=0.01, **({} if plain else TORCHS[theirs]))
    for t in range(2):
        for i, p in enumerate(params):
            p.grad = gradient(p, 1.0, 10 * t + i)
        source.step(lambda: sum(p.detach().double().square().sum() for p in params))
    optimizer = create_optimizer(name, three(dtype), **data.draw(chosen(name)))
    if data.draw(st.booleans()):
        train(optimizer)
    return refused_or_trains(optimizer, source.state_dict())


@given(st.data(), NAMES, DTYPES, st.sampled_from(["deepcopy", "pickle", "torch.save", "the optimizer itself"]))
@counted
def test_a_copy_goes_on_to_the_same_bits(data: st.DataObject, name: str, dtype: torch.dtype, way: str) -> Outcome:
    options = data.draw(chosen(name))
    optimizer = trained(name, dtype, options)
    if way == "the optimizer itself":
        other = pickle.loads(pickle.dumps(optimizer))
    else:
        other = trained(name, dtype, {key: options[key] for key in ("state", "keep_rounding") if key in options})
        for p, q in zip(of(optimizer), of(other)):
            q.data.copy_(p)
        other.load_state_dict(carried(optimizer.state_dict(), way))
    for each in (optimizer, other):
        train(each, 3, seed=7)
    assert same(of(optimizer), of(other))
    states = [[dict(each.state[p]) for p in of(each)] for each in (optimizer, other)]
    assert same(*states)
    return "trained"


def of(optimizer: RuleOptimizer) -> list[Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def carried(state_dict: dict[str, Any], way: str) -> Any:
    if way == "deepcopy":
        return copy.deepcopy(state_dict)
    if way == "pickle":
        return pickle.loads(pickle.dumps(state_dict))
    buffer = io.BytesIO()
    torch.save(state_dict, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)
