"""Win is a real Optimizer in every way that a user sees: groups, closures, schedules, hooks, checkpoints, AMP."""

from __future__ import annotations

import copy
import io
import pickle
import warnings

import pytest
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch.optim.lr_scheduler import OneCycleLR

import hf_winopt
from hf_winopt import Win
from tests.optim.test_win import BOTH, pair, step_all
from tests.problems import parameters


def quadratic(params):
    return sum(((p - 1) ** 2).sum() for p in params)


def train(params, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        quadratic(params).backward()
        optimizer.step()


def test_groups_state_and_defaults_are_the_bases():
    params = parameters([(4, 3), (5,)], torch.float32)
    base = torch.optim.AdamW(params[:1], lr=1e-2)
    optimizer = Win(base)
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert optimizer.param_groups is base.param_groups
    optimizer.add_param_group({"params": params[1:], "lr": 0.5})
    assert [group["lr"] for group in base.param_groups] == [1e-2, 0.5]
    train(params, optimizer, 3)
    assert optimizer.state is base.state
    assert optimizer.defaults is base.defaults
    assert set(optimizer.state[params[1]]) == {"step", "exp_avg", "exp_avg_sq", "x_gap"}
    optimizer.zero_grad()
    assert params[0].grad is None


def test_closure_sees_the_weights_and_its_loss_is_returned():
    params = parameters([(4, 3)], torch.float32)
    optimizer = Win(torch.optim.Adam(params, lr=0.1))
    seen = []

    def closure():
        optimizer.zero_grad()
        loss = quadratic(params)
        loss.backward()
        seen.append(params[0].detach().clone())
        return loss.detach()

    for _ in range(3):
        before = params[0].detach().clone()
        assert optimizer.step(closure) == quadratic([before])
        assert torch.equal(seen[-1], before)
    assert len(seen) == 3


def test_schedules_and_hooks():
    params = parameters([(4, 3)], torch.float32)
    optimizer = Win(torch.optim.SGD(params, lr=0.1, momentum=0.9))
    called = []
    optimizer.register_step_pre_hook(lambda *_: called.append("before"))
    optimizer.register_step_post_hook(lambda *_: called.append("after"))
    optimizer.register_state_dict_post_hook(lambda _, state_dict: state_dict.update(seen=1))
    optimizer.register_load_state_dict_pre_hook(lambda *_: called.append("load"))
    optimizer.register_load_state_dict_post_hook(lambda *_: called.append("loaded"))
    schedule = OneCycleLR(optimizer, max_lr=0.2, total_steps=9, cycle_momentum=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a schedule that does not see the step warns of its order
        train(params, optimizer, 1)
        schedule.step()
    assert optimizer.param_groups[0]["momentum"] < 0.95
    assert called == ["before", "after"]
    state_dict = optimizer.state_dict()
    assert state_dict.pop("seen") == 1
    optimizer.load_state_dict(state_dict)
    assert called[2:] == ["load", "loaded"]


def as_file(value):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def carried_over(optimizer, params, how):
    """A copy of parameters and optimizer, by one of the ways that there are."""
    if how in ("deepcopy", "pickle"):
        both = {"params": params, "optimizer": optimizer}
        copied = copy.deepcopy(both) if how == "deepcopy" else pickle.loads(pickle.dumps(both))
        return copied["params"], copied["optimizer"]
    others = [torch.nn.Parameter(p.detach().clone()) for p in params]
    again = Win(torch.optim.AdamW(others, lr=0.5), **optimizer.options)
    again.load_state_dict(as_file(optimizer.state_dict()))
    return others, again


@BOTH
@pytest.mark.parametrize("state", ["float32", "compact"])
@pytest.mark.parametrize("how", ["deepcopy", "pickle", "file"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_goes_on_to_the_same_bits(how, state, acceleration, dtype):
    params = parameters([(64, 80), (5,)], dtype)
    optimizer = Win(torch.optim.AdamW(params, lr=1e-2), acceleration, state=state)
    step_all([params], [optimizer], 5)
    others, again = carried_over(optimizer, params, how)
    step_all([params, others], [optimizer, again], 5, start=5)
    assert all(torch.equal(p, q) for p, q in zip(params, others))
    for p, q in zip(params, others):
        for name, value in optimizer.state[p].items():
            assert torch.equal(value, again.state[q][name]), name


def test_a_state_dict_of_the_base_alone_loads_and_the_other_way_round():
    params = parameters([(4, 3)], torch.float64)
    base = torch.optim.AdamW(params, lr=1e-2)
    step_all([params], [base], 3)
    optimizer = Win(torch.optim.AdamW(params, lr=0.5))
    optimizer.load_state_dict(as_file(base.state_dict()))
    step_all([params], [optimizer], 3, start=4)
    assert optimizer.state[params[0]]["step"] == 6
    base.load_state_dict(as_file(optimizer.state_dict()))
    step_all([params], [base], 2, start=7)
    assert base.state[params[0]]["step"] == 8


def test_a_state_dict_of_the_name_loads():
    mine, yours, optimizer, ours = pair(
        lambda p: Win(torch.optim.Adam(p)), lambda p: hf_winopt.create_optimizer("adam_win", p), shapes=[(4, 3)]
    )
    step_all([yours], [ours], 5)
    with torch.no_grad():
        mine[0].copy_(yours[0])
    optimizer.load_state_dict(as_file(ours.state_dict()))
    step_all([mine, yours], [optimizer, ours], 5, start=5)
    torch.testing.assert_close(mine, yours, rtol=1e-12, atol=1e-12)


def test_any_level_loads_into_the_other():
    params = parameters([(64, 80)], torch.float32)
    fine = Win(torch.optim.SGD(params, lr=1e-2, momentum=0.9))
    coarse = Win(torch.optim.SGD(params, lr=1e-2, momentum=0.9), state="compact")
    step_all([params], [fine], 3)
    coarse.load_state_dict(as_file(fine.state_dict()))
    step_all([params], [coarse], 1, start=4)
    assert coarse.state[params[0]]["x_gap"].dtype == torch.int8
    fine.load_state_dict(as_file(coarse.state_dict()))
    step_all([params], [fine], 1, start=5)
    assert fine.state[params[0]]["x_gap"].dtype == torch.float32
    assert "x_gap_scale" not in fine.state[params[0]]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: d["state"][0].update(x_gap=torch.zeros(2)), "x_gap of parameter 0 must be"),
        (lambda d: d["state"][0].update(x_gap=torch.full((4, 3), torch.nan)), "x_gap of parameter 0 must be finite"),
        (lambda d: d["param_groups"].append(d["param_groups"][0]), "parameter groups"),
        (lambda d: d.pop("state"), "state_dict must have"),
    ],
)
def test_a_malformed_state_dict_leaves_all_as_it_was(spoil, message):
    params = parameters([(4, 3)], torch.float32)
    optimizer = Win(torch.optim.AdamW(params, lr=1e-2))
    step_all([params], [optimizer], 2)
    before = copy.deepcopy(optimizer.state_dict())
    spoiled = copy.deepcopy(before)
    spoil(spoiled)
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(spoiled)
    torch.testing.assert_close(optimizer.state_dict(), before, rtol=0, atol=0)


def test_a_step_that_fails_leaves_x_where_it_was():
    class Fails(torch.optim.SGD):
        fails = False

        def step(self, closure=None):
            if self.fails:
                raise RuntimeError("no memory")
            return super().step(closure)

    params = parameters([(4, 3)], torch.float32)
    optimizer = Win(Fails(params, lr=1e-2))
    step_all([params], [optimizer], 3, rate=lambda t: 1e-2)
    x = params[0].detach() - optimizer.state[params[0]]["x_gap"]
    optimizer.base.fails = True
    with pytest.raises(RuntimeError, match="no memory"):
        step_all([params], [optimizer], 1)
    torch.testing.assert_close(params[0].detach() - optimizer.state[params[0]]["x_gap"], x)
    optimizer.base.fails = False
    step_all([params], [optimizer], 1)


def test_a_first_step_that_fails_leaves_a_base_that_can_begin():
    """Most bases make their state where there is none at all: nothing of ours may be there before."""
    params = parameters([(4, 3)], torch.float32)
    optimizer = Win(torch.optim.AdamW(params, lr=1e-2))
    params[0].grad = torch.zeros(4, 3).to_sparse()
    before = params[0].detach().clone()
    with pytest.raises(RuntimeError, match="sparse"):
        optimizer.step()
    assert torch.equal(params[0], before)
    step_all([params], [optimizer], 1)
    assert optimizer.state[params[0]]["step"] == 1


def test_grad_scaler_leaves_a_step_out():
    params = parameters([(4, 3)], torch.float32)
    optimizer = Win(torch.optim.AdamW(params, lr=1e-2, fused=True))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    for spoiled in (False, True, False):
        optimizer.zero_grad()
        scaler.scale(quadratic(params)).backward()
        if spoiled:
            params[0].grad[0, 0] = torch.inf
        before = params[0].detach().clone()
        scaler.step(optimizer)
        scaler.update()
        assert torch.equal(before, params[0]) == spoiled
    assert optimizer.state[params[0]]["step"] == 2


def test_frozen_and_unused_parameters_are_left_alone():
    params = parameters([(4, 3), (5,), (6,)], torch.float32)
    params[1].requires_grad_(False)
    optimizer = Win(torch.optim.Adam(params, lr=1e-2))
    before = [p.detach().clone() for p in params]
    params[0].grad = torch.ones_like(params[0])
    optimizer.step()
    assert [torch.equal(p, q) for p, q in zip(params, before)] == [False, True, True]
    assert set(optimizer.state) == {params[0]}


def test_sparse_gradients_where_the_base_takes_them():
    table = torch.nn.Embedding(10, 4, sparse=True)
    optimizer = Win(torch.optim.SGD(table.parameters(), lr=0.1))
    table(torch.tensor([1, 2])).sum().backward()
    before = table.weight.detach().clone()
    optimizer.step()
    assert (table.weight != before).any(1).tolist() == [False, True, True] + [False] * 7


def test_a_base_that_leaves_out_its_first_step_can_begin_later():
    class Waits(torch.optim.AdamW):
        waits = True

        def step(self, closure=None):
            return None if self.waits else super().step(closure)

    params = parameters([(4, 3)], torch.float32)
    optimizer = Win(Waits(params, lr=1e-2))
    step_all([params], [optimizer], 2)
    optimizer.base.waits = False
    step_all([params], [optimizer], 2)
    assert optimizer.state[params[0]]["step"] == 2


def test_by_way_of_the_base_alone_codes_stay_codes():
    params = parameters([(64, 80)], torch.float32)
    optimizer = Win(torch.optim.AdamW(params, lr=1e-2), state="compact")
    step_all([params], [optimizer], 3)
    kept = {name: value.clone() for name, value in optimizer.state[params[0]].items() if "gap" in name}
    base = torch.optim.AdamW(params, lr=1e-2)
    base.load_state_dict(optimizer.state_dict())
    again = Win(torch.optim.AdamW(params, lr=1e-2), state="compact")
    again.load_state_dict(base.state_dict())
    assert all(torch.equal(again.state[params[0]][name], value) for name, value in kept.items())


@pytest.mark.parametrize("backend", ["eager", "compile", "triton"])
def test_a_weight_that_is_laid_out_otherwise_later(backend):
    params, others = ([torch.nn.Parameter(torch.ones(4, 3, 2, 2))] for _ in range(2))
    mine, theirs = (Win(torch.optim.SGD(p, lr=1e-2), backend=b) for p, b in ((params, backend), (others, "eager")))
    step_all([params, others], [mine, theirs], 3)
    params[0].data = params[0].data.to(memory_format=torch.channels_last)
    step_all([params, others], [mine, theirs], 2, start=4)
    torch.testing.assert_close(params, others)


def test_a_weight_without_memory_of_its_own_is_refused_before_any_is_touched():
    params = parameters([(300, 300), (300, 300)], torch.float32)
    optimizer = Win(torch.optim.SGD(params, lr=1e-2))
    step_all([params], [optimizer], 2)
    params[1].data = params[1].data[:1].expand(300, 300)
    before = params[0].detach().clone()
    with pytest.raises(ValueError, match="memory for every element"):
        step_all([params], [optimizer], 1, start=4)
    assert torch.equal(params[0], before)


def test_accelerate_hears_of_a_step_that_was_left_out():
    accelerator = Accelerator(cpu=True)
    params = parameters([(4, 3)], torch.float32)
    optimizer = AcceleratedOptimizer(
        Win(torch.optim.AdamW(params, lr=1e-2)), scaler=torch.amp.GradScaler("cpu", init_scale=2.0)
    )
    for spoiled in (False, True, False):
        optimizer.zero_grad()
        optimizer.scaler.scale(quadratic(params)).backward()
        if spoiled:
            params[0].grad[0, 0] = torch.inf
        before = params[0].detach().clone()
        optimizer.step()
        assert optimizer.step_was_skipped == spoiled == torch.equal(before, params[0])
    assert accelerator.prepare(optimizer.optimizer).param_groups is optimizer.optimizer.base.param_groups
