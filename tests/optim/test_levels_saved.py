"""Levels of state through checkpoints: to the same bits, into any other level, and never spoiled."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch

from hf_winopt import AdamW
from tests.optim.leveled import BLOCKED, LEVELS, LR, everything, go_on, model, optimizer_of, same, saved, types

NAMES = ["adamw_win", "adamw_win2", "adam_l2", "lamb_win", "sgd_win", "adan_win2", "adal_win"]
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)


def through_a_file(value):
    file = io.BytesIO()
    torch.save(value, file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=True)


WAYS = [lambda value: value, copy.deepcopy, through_a_file]


@pytest.mark.parametrize("way", WAYS, ids=["as it is", "deepcopy", "file"])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", NAMES)
def test_a_resume_gives_the_same_bits(name, level, way):
    parameters = model()
    optimizer = optimizer_of(name, parameters, level, weight_decay=0.01)
    go_on(parameters, optimizer, 0)
    others = model()
    others.load_state_dict(parameters.state_dict())
    resumed = optimizer_of(name, others, level, weight_decay=0.01)
    resumed.load_state_dict(way(optimizer.state_dict()))
    assert same(*([t.float() for t in everything(*run)] for run in ((others, resumed), (parameters, optimizer))))
    go_on(parameters, optimizer, 1)
    go_on(others, resumed, 1)
    assert same(everything(others, resumed), everything(parameters, optimizer))


@pytest.mark.parametrize("level", LEVELS)
@DTYPES
def test_a_resume_in_half_precision(dtype, level):
    parameters = model(dtype)
    optimizer = optimizer_of("adamw_win2", parameters, level)
    go_on(parameters, optimizer, 0)
    others = copy.deepcopy(parameters)
    resumed = optimizer_of("adamw_win2", others, level)
    resumed.load_state_dict(through_a_file(optimizer.state_dict()))
    go_on(parameters, optimizer, 1)
    go_on(others, resumed, 1)
    assert same(everything(others, resumed), everything(parameters, optimizer))


@pytest.mark.parametrize("level", LEVELS)
def test_copies_of_the_optimizer_go_on_alike(level):
    for copied in (copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))):
        parameters = model()
        optimizer = optimizer_of("adamw_win", parameters, level)
        go_on(parameters, optimizer, 0)
        twin = copied(optimizer)
        others = twin.param_groups[0]["params"]
        go_on(parameters, optimizer, 1)
        go_on(others, twin, 1)
        assert same(everything(others, twin), everything(parameters, optimizer))


# another level -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", LEVELS)
@pytest.mark.parametrize("before", LEVELS)
@pytest.mark.parametrize("name", NAMES)
def test_any_level_goes_on_as_any_other(name, before, after):
    parameters = model()
    optimizer = optimizer_of(name, parameters, before)
    go_on(parameters, optimizer, 0)
    others = copy.deepcopy(parameters)
    resumed = optimizer_of(name, others, after)
    resumed.load_state_dict(through_a_file(optimizer.state_dict()))
    assert resumed.param_groups[0]["state"] == after
    again = optimizer_of(name, copy.deepcopy(parameters), after)
    again.load_state_dict(through_a_file(resumed.state_dict()))  # saved once more before any step
    began = [p.detach().clone() for p in parameters]
    go_on(parameters, optimizer, 1)
    go_on(others, resumed, 1)
    go_on(again.param_groups[0]["params"], again, 1)
    fresh = model()
    there = optimizer_of(name, fresh, after)
    go_on(fresh, there, 0, steps=1)
    for p, q, r, was in zip(parameters, others, fresh, began):
        assert (p - q).square().mean().sqrt() <= 0.1 * (p - was).square().mean().sqrt()
        assert types(resumed.state[q]) == types(there.state[r])
        assert {n: t.shape for n, t in resumed.state[q].items()} == {n: t.shape for n, t in there.state[r].items()}
    assert same(everything(again.param_groups[0]["params"], again), everything(others, resumed))


@pytest.mark.parametrize("after", LEVELS)
@pytest.mark.parametrize("before", LEVELS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_in_half_precision_too(dtype, before, after):
    """Also what rounding has taken is handed on, as a float32 distance or by itself."""
    parameters = model(dtype)
    optimizer = optimizer_of("adamw_win", parameters, before)
    go_on(parameters, optimizer, 0)
    others = copy.deepcopy(parameters)
    resumed = optimizer_of("adamw_win", others, after)
    resumed.load_state_dict(saved(optimizer))
    go_on(parameters, optimizer, 1)
    go_on(others, resumed, 1)
    for p, q in zip(parameters, others):
        expected = torch.float16 if after != "float32" and p.ndim > 1 else torch.float32
        kept = resumed.state[q]["rounding" if expected == torch.float16 else "x_gap"]
        assert kept.dtype == expected and "x_gap_scale" not in resumed.state[q]
        x, y = p.float() - distance(optimizer.state[p]), q.float() - distance(resumed.state[q])
        assert (x - y).square().mean().sqrt() <= 0.3 * LR


def distance(state):
    return state["rounding"].float() / -4096 if "rounding" in state else state["x_gap"]


@pytest.mark.parametrize("level", LEVELS)
def test_rounding_that_was_not_kept_begins_at_nothing(level):
    for before, after in ((True, False), (False, True)):
        parameters = model(torch.bfloat16)
        optimizer = optimizer_of("adam_l2", parameters, level, keep_rounding=before)
        go_on(parameters, optimizer, 0)
        resumed = optimizer_of("adam_l2", parameters, level, keep_rounding=after)
        resumed.load_state_dict(saved(optimizer))
        go_on(parameters, resumed, 1)
        assert all(("rounding" in state) == after for state in resumed.state.values())


@pytest.mark.parametrize("level", LEVELS)
def test_from_torchs_adamw(level):
    """And on as torch's own would, where nothing is accelerated."""
    parameters = model()
    torchs = torch.optim.AdamW(list(parameters), lr=LR)
    go_on(parameters, torchs, 0)
    for acceleration in ("none", "win"):
        others = copy.deepcopy(parameters)
        ours = AdamW(list(others), state=level, acceleration=acceleration, backend="eager")
        ours.load_state_dict(through_a_file(torchs.state_dict()))
        go_on(others, ours, 1)
        for p, q in zip(parameters, others):
            assert ours.state[q]["step"] == 10
            assert ("exp_avg_sq_scale" in ours.state[q]) == (level != "float32" and p.ndim > 1)
            assert 0 < (p - q).abs().max() < 10 * LR
        if acceleration == "none":
            plain = copy.deepcopy(parameters)
            torch_on = torch.optim.AdamW(list(plain), lr=LR)
            torch_on.load_state_dict(saved(torchs))
            go_on(plain, torch_on, 1)
            for p, q in zip(plain, others):
                assert (p - q).square().mean().sqrt() <= 0.1 * LR


# spoiled -------------------------------------------------------------------------------------------------------------


def with_one(value):
    def spoil(tensor):
        tensor = tensor.clone()
        tensor.view(-1)[5] = value
        return tensor

    return spoil


SCALE = [
    (with_one(torch.nan), "must be a finite number >= 0; got nan"),
    (with_one(-1.0), "must be a finite number >= 0; got -1.0"),
    (with_one(torch.inf), "must be a finite number >= 0; got inf"),
    (lambda a: a[:, :1], r"must be a floating point tensor of shape \(40, 2\)"),
    (lambda a: a.view(-1), r"must be a floating point tensor of shape \(40, 2\)"),
    (lambda a: a.int(), "must be a floating point tensor"),
    (lambda a: "a", "must be a floating point tensor"),
    (lambda a: a.to("meta"), "must be dense and hold its values"),
    (lambda a: a.to_sparse(), "must be dense and hold its values"),
]
CODES = [
    (lambda k: k.double(), "since it has scales"),
    (lambda k: k.float(), "since it has scales"),
    (lambda k: k.bfloat16(), "since it has scales"),
    (lambda k: k.long(), "since it has scales"),
    (lambda k: k[:3], r"of shape \(40, 200\)"),
    (lambda k: k.view(-1), r"of shape \(40, 200\)"),
]


def refuses(optimizer, parameters, state, match):
    before, groups = everything(parameters, optimizer), copy.deepcopy(optimizer.state_dict()["param_groups"])
    with pytest.raises(ValueError, match=match):
        optimizer.load_state_dict(state)
    assert same(everything(parameters, optimizer), before)
    assert optimizer.state_dict()["param_groups"] == groups
    go_on(parameters, optimizer, 2, steps=1)
    assert all(tensor.isfinite().all() for tensor in everything(parameters, optimizer))


def stepped(level, name="adamw_win"):
    parameters = model()
    optimizer = optimizer_of(name, parameters, level)
    go_on(parameters, optimizer, 0)
    return parameters, optimizer


@pytest.mark.parametrize("spoil, right", SCALE)
@pytest.mark.parametrize("name", ["exp_avg_sq", "x_gap"])
@pytest.mark.parametrize("level", BLOCKED)
def test_spoiled_scales_are_refused_by_name(level, name, spoil, right):
    parameters, optimizer = stepped(level)
    state = saved(optimizer)
    state["state"][0][f"{name}_scale"] = spoil(state["state"][0][f"{name}_scale"])
    refuses(optimizer, parameters, state, f"{name}_scale of parameter 0 {right}")


@pytest.mark.parametrize("spoil, right", CODES)
@pytest.mark.parametrize("name", ["exp_avg_sq", "x_gap"])
@pytest.mark.parametrize("level", BLOCKED)
def test_spoiled_codes_are_refused_by_name(level, name, spoil, right):
    parameters, optimizer = stepped(level)
    state = saved(optimizer)
    state["state"][0][name] = spoil(state["state"][0][name])
    refuses(optimizer, parameters, state, f"{name} of parameter 0 must be.*{right}")


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -1.0])
def test_half_precision_codes_are_finite_and_not_negative(value):
    parameters, optimizer = stepped("compact")
    state = saved(optimizer)
    state["state"][0]["exp_avg_sq"] = with_one(value)(state["state"][0]["exp_avg_sq"])
    refuses(optimizer, parameters, state, "exp_avg_sq of parameter 0 must be a finite number >= 0")


@pytest.mark.parametrize("as_values", [True, False], ids=["as float32", "as codes"])
@pytest.mark.parametrize("after", LEVELS)
@pytest.mark.parametrize(
    "level, name", [("compact", "exp_avg_sq"), ("8bit", "exp_avg_sq"), ("8bit", "exp_avg"), ("compact", "x_gap")]
)
def test_codes_without_their_scales_are_refused(level, name, after, as_values):
    """They would be moments of 127 and 255."""
    _, optimizer = stepped(level)
    state = saved(optimizer)
    for each in state["state"].values():
        if each.pop(f"{name}_scale", None) is not None and as_values:
            each[name] = each[name].float()
    others, other = stepped(after)
    match = f"{name} of parameter 0 (holds codes of another level|must be a floating point tensor)"
    refuses(other, others, state, match)


def test_codes_of_rows_without_a_gradient_are_refused_too():
    """Such blocks hold zeros: an embedding has many."""
    p = torch.nn.Parameter(torch.randn(64, 128))
    optimizer = optimizer_of("adam_l2", [p], "8bit")
    p.grad = torch.randn(64, 128)
    p.grad[3] = 0.0
    optimizer.step()
    state = saved(optimizer)
    kept = state["state"][0]
    kept.update(
        {name: kept[name].float() for name in ("exp_avg", "exp_avg_sq") if kept.pop(f"{name}_scale") is not None}
    )
    with pytest.raises(ValueError, match="codes of another level"):
        optimizer_of("adam_l2", [p], "float32").load_state_dict(state)


@pytest.mark.parametrize("level", BLOCKED)
def test_negative_codes_of_a_second_moment_are_refused(level):
    """int8 has them, and a root of what they say is no number."""
    parameters, optimizer = stepped(level)
    state = saved(optimizer)
    state["state"][0]["exp_avg_sq"] = torch.full((40, 200), -3, dtype=torch.int8)
    refuses(optimizer, parameters, state, "exp_avg_sq of parameter 0 must be")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("level", BLOCKED)
def test_scales_of_another_type_are_taken_or_refused_at_once(level, dtype):
    parameters, optimizer = stepped(level)
    state = saved(optimizer)
    for each in state["state"].values():
        each.update({key: value.to(dtype) for key, value in each.items() if key.endswith("_scale")})
    try:
        optimizer.load_state_dict(state)
    except ValueError as error:
        assert "scale of parameter 0" in str(error)
    go_on(parameters, optimizer, 1)
    assert all(tensor.isfinite().all() for tensor in everything(parameters, optimizer))
