"""State dicts: ours and torch's, whole, foreign and broken."""

from __future__ import annotations

import copy
import io
import warnings

import pytest
import torch

from hf_winopt import SGD, AdamW, create_optimizer


def trained(make, dtype=torch.float32, steps=5):
    torch.manual_seed(1)
    params = [torch.nn.Parameter(torch.randn(4, 3).to(dtype)), torch.nn.Parameter(torch.randn(3).to(dtype))]
    optimizer = make(params)
    go_on(params, optimizer, range(steps))
    return params, optimizer


def go_on(params, optimizer, steps):
    for t in steps:
        for i, p in enumerate(params):
            p.grad = (torch.sin(torch.arange(p.numel()) + t + i) * 0.1).view(p.shape).to(p.dtype)
        optimizer.step()


def clones(params):
    return [torch.nn.Parameter(p.detach().clone()) for p in params]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["adamw_win2", "adan_win_agr", "lamb_win", "sgd_win", "adal"])
def test_a_saved_run_goes_on_to_the_same_bits(name, dtype):
    params, optimizer = trained(lambda p: create_optimizer(name, p, lr=0.1, weight_decay=0.1), dtype)
    buffer = io.BytesIO()
    torch.save(optimizer.state_dict(), buffer)
    buffer.seek(0)
    others = clones(params)
    other = create_optimizer(name, others, lr=0.7)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert other.param_groups[0]["lr"] == 0.1
    go_on(params, optimizer, range(5, 9))
    go_on(others, other, range(5, 9))
    for p, q in zip(params, others):
        assert torch.equal(p, q)
        for key, value in optimizer.state[p].items():
            assert torch.equal(value, other.state[q][key]) and value.dtype == other.state[q][key].dtype, key


def test_state_dict_holds_only_plain_tensors_and_numbers():
    _, optimizer = trained(lambda p: create_optimizer("adamw_win_agr", p))
    plain = (int, float, bool, str, type(None), torch.Tensor)
    for state in optimizer.state_dict()["state"].values():
        assert all(type(value) is torch.Tensor for value in state.values())
    for group in optimizer.state_dict()["param_groups"]:
        for value in group.values():
            assert isinstance(value, plain) or all(isinstance(v, plain) for v in value)


def test_torch_adamw_goes_on_as_ours():
    """Without acceleration ours continues torch's run exactly."""
    params, theirs = trained(lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.2), torch.float64)
    others = clones(params)
    ours = AdamW(others)
    ours.load_state_dict(theirs.state_dict())
    group = ours.param_groups[0]
    assert group["lr"] == 0.1 and group["weight_decay"] == 0.2 and "amsgrad" not in group and "fused" not in group
    go_on(params, theirs, range(5, 12))
    go_on(others, ours, range(5, 12))
    torch.testing.assert_close(others, params, rtol=1e-12, atol=1e-12)


def test_a_run_switches_from_torch_adamw_to_win_half_way():
    params, theirs = trained(lambda p: torch.optim.AdamW(p, lr=0.1))
    others = clones(params)
    ours = AdamW(others, acceleration="win")
    ours.load_state_dict(theirs.state_dict())
    assert ours.param_groups[0]["acceleration"] == "win"
    for p in others:
        p.grad = torch.zeros_like(p)
    start = [p.detach().clone() for p in others]
    ours.param_groups[0]["lr"] = 0.0
    ours.step()
    for p, before, q in zip(others, start, params):
        assert ours.state[p]["step"] == 6
        assert not ours.state[p]["x_gap"].any() and torch.equal(p, before)
        torch.testing.assert_close(ours.state[p]["exp_avg"], 0.9 * theirs.state[q]["exp_avg"])


@pytest.mark.parametrize("dampening", [0.0, 0.5])
def test_torch_sgd_goes_on_as_ours(dampening):
    """torch's SGD keeps no step count; a buffer that is there says that the first step is over."""
    params, theirs = trained(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=dampening), torch.float64)
    others = clones(params)
    ours = SGD(others)
    ours.load_state_dict(theirs.state_dict())
    go_on(params, theirs, range(5, 9))
    go_on(others, ours, range(5, 9))
    torch.testing.assert_close(others, params, rtol=1e-12, atol=1e-12)


def test_moments_that_are_not_all_there_start_anew_and_that_is_said():
    """A step count without its moments would correct zeros for a bias that they do not have."""
    params, theirs = trained(lambda p: torch.optim.AdamW(p, lr=0.1), torch.float64)
    state_dict = copy.deepcopy(theirs.state_dict())
    del state_dict["state"][0]["exp_avg_sq"]
    others = clones(params)
    ours = AdamW(others)
    with pytest.warns(
        UserWarning, match="moments of 1 parameters start anew.*has exp_avg of parameter 0, and no exp_avg_sq"
    ):
        ours.load_state_dict(state_dict)
    fresh = clones(params[:1])
    go_on(others, ours, range(2))
    go_on(fresh, AdamW(fresh, lr=0.1), range(2))
    assert torch.equal(others[0], fresh[0])
    assert ours.state[others[1]]["step"] == 7


def test_the_form_of_the_rule_is_the_optimizers_own():
    params, win = trained(lambda p: create_optimizer("adamw_win", p, lr=0.3))
    win2 = create_optimizer("adamw_win2", clones(params))
    win2.load_state_dict(win.state_dict())
    group = win2.param_groups[0]
    assert group["acceleration"] == "win2" and group["lr"] == 0.3
    go_on(group["params"], win2, range(2))
    assert set(win2.state[group["params"][0]]) == {"step", "exp_avg", "exp_avg_sq", "x_gap", "y_gap"}


def test_distances_stay_float32_beside_bf16_parameters():
    params, optimizer = trained(lambda p: create_optimizer("adamw_win", p, lr=0.1), torch.bfloat16)
    other = create_optimizer("adamw_win", clones(params))
    other.load_state_dict(optimizer.state_dict())
    for p, q in zip(params, other.param_groups[0]["params"]):
        gap = other.state[q]["x_gap"]
        assert gap.dtype == torch.float32 and torch.equal(gap, optimizer.state[p]["x_gap"])


def test_the_users_hooks_see_and_change_what_is_loaded():
    params, optimizer = trained(lambda p: create_optimizer("adamw_win", p))
    other = create_optimizer("adamw_win", clones(params))
    seen = []

    def halve(_, state_dict):
        seen.append("pre")
        state_dict = copy.deepcopy(state_dict)
        state_dict["state"][0]["exp_avg"] /= 2
        return state_dict

    other.register_load_state_dict_pre_hook(halve)
    other.register_load_state_dict_post_hook(lambda o: seen.append(len(o.state)))
    other.load_state_dict(optimizer.state_dict())
    assert seen == ["pre", 2]
    mine = other.param_groups[0]["params"][0]
    assert torch.equal(other.state[mine]["exp_avg"], optimizer.state[params[0]]["exp_avg"] / 2)


def without_params(state_dict):
    state_dict["param_groups"][0]["params"].pop()


def wrong_shape(state_dict):
    state_dict["state"][0]["x_gap"] = torch.zeros(7)


def wrong_type(state_dict):
    state_dict["state"][0]["exp_avg"] = "m"


def bad_option(state_dict):
    state_dict["param_groups"][0]["betas"] = (0.9, 0.99, 0.999)


def negative_step(state_dict):
    state_dict["state"][1]["step"] = torch.tensor(-3.0)


def step_in_words(state_dict):
    state_dict["state"][0]["step"] = "three"


BROKEN = [
    (negative_step, r"step of parameter 1 must be a finite number >= 0; got tensor\(-3"),
    (step_in_words, r"step of parameter 0 must be a finite number >= 0; got 'three'"),
    (without_params, r"parameter groups of \[2\] parameters; got \[1\]"),
    (wrong_shape, r"x_gap of parameter 0 must be a floating point tensor of shape \(4, 3\); got .*\(7,\)"),
    (wrong_type, r"exp_avg of parameter 0 must be .*got 'm'"),
    (bad_option, r"betas must be 2 numbers"),
]


@pytest.mark.parametrize(("damage", "message"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_state_dict_is_refused_and_changes_nothing(damage, message):
    params, optimizer = trained(lambda p: create_optimizer("adamw_win", p, lr=0.3))
    state_dict = copy.deepcopy(optimizer.state_dict())
    damage(state_dict)
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(state_dict)
    after = optimizer.state_dict()
    assert str(before) == str(after)
    go_on(params, optimizer, range(1))


def test_amsgrad_is_left_out_with_a_warning():
    params, theirs = trained(lambda p: torch.optim.AdamW(p, amsgrad=True))
    ours = AdamW(clones(params))
    with pytest.warns(UserWarning, match="amsgrad"):
        ours.load_state_dict(theirs.state_dict())
    assert "max_exp_avg_sq" not in ours.state[ours.param_groups[0]["params"][0]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours.load_state_dict(ours.state_dict())


def test_a_square_that_was_too_large_is_no_reason_not_to_go_on():
    params = [[torch.nn.Parameter(torch.ones(3))] for _ in range(2)]
    first, second = (AdamW(mine) for mine in params)
    for scale in (torch.tensor([1e21, 1.0, 1.0]), torch.ones(3)):
        params[0][0].grad = scale
        first.step()
    assert first.state[params[0][0]]["exp_avg_sq"].isinf().tolist() == [True, False, False]
    second.load_state_dict(first.state_dict())
    params[1][0].data.copy_(params[0][0].data)
    for (p,), optimizer in zip(params, (first, second)):
        p.grad = torch.ones(3)
        optimizer.step()
    assert torch.equal(*(p.detach() for (p,) in params)) and params[0][0].isfinite().all()
