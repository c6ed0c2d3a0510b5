"""Where our optimizers coincide with torch's they give the same numbers, and they behave as torch's do everywhere."""

from __future__ import annotations

import copy
import io
import math
import pickle

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR

import hf_winopt
from hf_winopt import SGD, AdaL, Adam, AdamW, Adan, create_optimizer
from tests.problems import parameters, warm_up

PAIRS = [
    (AdamW, torch.optim.AdamW, {"weight_decay": 0.1}),
    (AdamW, torch.optim.AdamW, {"betas": (0.7, 0.9), "eps": 1e-3, "maximize": True}),
    (Adam, torch.optim.Adam, {"weight_decay": 0.1}),
    (Adam, torch.optim.Adam, {}),
    (SGD, torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.1}),
    (SGD, torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    (SGD, torch.optim.SGD, {"momentum": 0.5, "dampening": 0.3, "maximize": True}),
    (SGD, torch.optim.SGD, {"momentum": 0.0, "weight_decay": 0.1}),
]


def both(ours, theirs, options, dtype=torch.float64):
    mine = parameters([(4, 3), (5,), ()], dtype)
    yours = [torch.nn.Parameter(p.detach().clone()) for p in mine]
    return mine, yours, ours(mine, lr=1e-2, **options), theirs(yours, lr=1e-2, **options)


@pytest.mark.parametrize(("ours", "theirs", "options"), PAIRS, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=str)
def test_equal_to_torch(ours, theirs, options, dtype, tolerance):
    mine, yours, a, b = both(ours, theirs, options, dtype)
    for t in range(40):
        for i, (p, q) in enumerate(zip(mine, yours)):
            p.grad = q.grad = None if (i + t) % 5 == 0 else torch.randn_like(p)
        for optimizer in (a, b):
            optimizer.param_groups[0]["lr"] = warm_up(t)
            optimizer.step()
    torch.testing.assert_close(mine, yours, rtol=tolerance, atol=tolerance)


def quadratic(params):
    return sum(((p - 1) ** 2).sum() for p in params)


def test_closure_runs_with_gradients_and_its_loss_is_returned():
    params = parameters([(4, 3)], torch.float32)
    optimizer = AdamW(params, lr=0.1, acceleration="win")

    def closure():
        optimizer.zero_grad()
        loss = quadratic(params)
        loss.backward()
        return loss.detach()

    losses = [float(optimizer.step(closure)) for _ in range(50)]
    assert losses[-1] < 0.1 * losses[0]
    optimizer.zero_grad()
    assert params[0].grad is None


@pytest.mark.parametrize("name", hf_winopt.OPTIMIZERS)
def test_every_name_descends(name):
    params = parameters([(4, 3), (5,)], torch.float32)
    optimizer = create_optimizer(name, params, lr=0.01, weight_decay=1e-4)
    before = float(quadratic(params))
    for _ in range(100):
        optimizer.zero_grad()
        quadratic(params).backward()
        optimizer.step()
    assert float(quadratic(params)) < before


def test_lr_schedulers_and_tensor_rates():
    params = parameters([(4, 3)], torch.float64)
    plain = AdamW([torch.nn.Parameter(params[0].detach().clone())], lr=0.1, acceleration="win")
    tensor = AdamW(params, lr=torch.tensor(0.1, dtype=torch.float64), acceleration="win")
    schedulers = [LambdaLR(o, lambda t: min(1.0, t / 5)) for o in (plain, tensor)]
    for _ in range(10):
        for o, scheduler in zip((plain, tensor), schedulers):
            p = o.param_groups[0]["params"][0]
            p.grad = torch.ones_like(p) * 0.3
            o.step()
            scheduler.step()
    assert torch.equal(plain.param_groups[0]["params"][0], params[0])


def test_one_cycle_moves_betas_and_momentum():
    for optimizer in (AdamW(parameters([(3,)], torch.float32)), SGD(parameters([(3,)], torch.float32))):
        scheduler = OneCycleLR(optimizer, max_lr=0.1, total_steps=10)
        for _ in range(9):
            p = optimizer.param_groups[0]["params"][0]
            p.grad = torch.ones_like(p)
            optimizer.step()
            scheduler.step()
        assert torch.isfinite(p).all()


def test_groups_have_options_of_their_own_and_can_be_added():
    a, b, c = parameters([(4, 3), (5,), (2, 2)], torch.float64)
    optimizer = AdamW(
        [{"params": [a], "weight_decay": 0.5}, {"params": [b], "lr": 0.0, "acceleration": "win2"}], lr=0.1
    )
    optimizer.add_param_group({"params": [c], "betas": (0.5, 0.5), "acceleration": "win"})
    alone = torch.nn.Parameter(c.detach().clone())
    reference = AdamW([alone], lr=0.1, betas=(0.5, 0.5), acceleration="win")
    kept = b.detach().clone()
    for _ in range(5):
        for p in (a, b, c):
            p.grad = torch.ones_like(p)
        alone.grad = torch.ones_like(alone)
        optimizer.step()
        reference.step()
    assert torch.equal(b, kept)
    assert torch.equal(c, alone)
    assert set(optimizer.state[b]) == {"step", "exp_avg", "exp_avg_sq", "x_gap", "y_gap"}


def test_a_tied_parameter_is_stepped_once():
    layer = torch.nn.Linear(4, 4, bias=False)
    tied = torch.nn.Linear(4, 4, bias=False)
    tied.weight = layer.weight
    model = torch.nn.Sequential(layer, tied)
    optimizer = AdamW(model.parameters(), acceleration="win")
    model(torch.randn(2, 4)).sum().backward()
    optimizer.step()
    assert len(optimizer.state) == 1
    assert optimizer.state[layer.weight]["step"] == 1


def test_step_hooks_run():
    params = parameters([(3,)], torch.float32)
    optimizer = AdamW(params)
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("pre"))
    optimizer.register_step_post_hook(lambda *_: seen.append("post"))
    params[0].grad = torch.ones(3)
    optimizer.step()
    assert seen == ["pre", "post"]


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch"])
def test_copies_go_on_to_the_same_bits(way):
    model = torch.nn.Linear(5, 3)
    optimizer = create_optimizer("adan_win2_agr", model.parameters(), lr=0.1, backend="eager")

    def train(m, o, steps):
        for t in range(steps):
            for i, p in enumerate(m.parameters()):
                p.grad = torch.full_like(p, 0.1 * (t + i + 1))
            o.step()

    train(model, optimizer, 4)
    pair = (model, optimizer)
    if way == "deepcopy":
        other_model, other = copy.deepcopy(pair)
    elif way == "pickle":
        other_model, other = pickle.loads(pickle.dumps(pair))
    else:
        buffer = io.BytesIO()
        torch.save(pair, buffer)
        buffer.seek(0)
        other_model, other = torch.load(buffer, weights_only=False)
    assert other.backend == "eager"
    train(model, optimizer, 3)
    train(other_model, other, 3)
    assert torch.equal(model.weight, other_model.weight) and torch.equal(model.bias, other_model.bias)


def test_clipping_agrees_with_torch_and_leaves_gradients_alone():
    params = parameters([(4, 3), (5,)], torch.float64)
    others = [torch.nn.Parameter(p.detach().clone()) for p in params]
    ours = AdamW(params, max_grad_norm=0.7, acceleration="win")
    reference = AdamW(others, acceleration="win")
    for _ in range(5):
        for p, q in zip(params, others):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        kept = params[0].grad.clone()
        norm = torch.nn.utils.clip_grad_norm_(others, 0.7)
        ours.step()
        reference.step()
        assert torch.equal(params[0].grad, kept)
        torch.testing.assert_close(ours.grad_norm, norm)
    torch.testing.assert_close(params, others, rtol=1e-12, atol=1e-12)


def test_a_norm_that_is_no_number_stays_one():
    """As torch's clipping does: nothing is stepped at full length because a norm could not be found."""
    bad, huge = parameters([(3,), (3,)], torch.float32)
    optimizer = SGD([bad, huge], lr=1.0, max_grad_norm=1.0)
    bad.grad, huge.grad = torch.full((3,), math.nan), torch.full((3,), 1e6)
    optimizer.step()
    assert torch.isnan(huge).all()


def test_steps_are_counted_in_float32_whatever_the_default_type():
    p = torch.nn.Parameter(torch.ones(2))
    optimizer = SGD([p], lr=0.0)
    p.grad = torch.ones(2)
    torch.set_default_dtype(torch.bfloat16)
    try:
        for _ in range(260):
            optimizer.step()
    finally:
        torch.set_default_dtype(torch.float32)
    assert optimizer.state[p]["step"].item() == 260


def test_switching_acceleration_off_and_on_starts_from_the_parameter():
    p = torch.nn.Parameter(torch.ones(2))
    optimizer = AdamW([p], lr=0.1, acceleration="win")
    for acceleration, steps in (("win", 2), ("none", 50), ("win", 1)):
        optimizer.param_groups[0]["acceleration"] = acceleration
        for _ in range(steps):
            before = p.detach().clone()
            p.grad = torch.ones(2)
            optimizer.step()
    assert (p - before).abs().max() < 0.2


def test_restart_by_hand_equals_a_fresh_start():
    p = torch.nn.Parameter(torch.randn(4, 3, dtype=torch.float64))
    optimizer = Adan([p], lr=0.1)
    for t in range(5):
        p.grad = torch.randn_like(p) * (t + 1)
        optimizer.step()
    optimizer.restart()
    q = torch.nn.Parameter(p.detach().clone())
    fresh = Adan([q], lr=0.1)
    for _ in range(3):
        p.grad = torch.randn_like(p)
        q.grad = p.grad.clone()
        optimizer.step()
        fresh.step()
    assert torch.equal(p, q)


@pytest.mark.parametrize("name", hf_winopt.OPTIMIZERS)
def test_costs_are_true(name):
    """State bytes are those of the tensors held; the table's figures are those of an optimizer of matrices alone."""
    params = parameters([(40, 50), (30, 20)], torch.float32)
    optimizer = create_optimizer(name, params, weight_decay=0.01)
    row = hf_winopt.OPTIMIZERS[name]
    assert optimizer.state_bytes() == 0
    l2_sum = 4 if row.cls is AdaL and optimizer.rule(optimizer.defaults).decay == "l2" else 0
    assert optimizer.bytes_per_param() == row.bytes_per_param + l2_sum
    for p in params:
        p.grad = torch.randn_like(p)
    optimizer.step()
    held = sum(v.nbytes for state in optimizer.state.values() for v in state.values())
    steps = 4 * len(params)
    assert optimizer.state_bytes() == held == row.state_bytes_per_param * 2600 + steps


def test_bytes_of_a_mixed_optimizer():
    matrix, bias = parameters([(10, 10), (100,)], torch.float32)
    agr = AdamW([matrix, bias], acceleration="win", agr=True)
    assert agr.bytes_per_param() == (40 + 36) / 2  # AGR leaves the bias alone
    clipped = AdamW([matrix, bias], acceleration="win", max_grad_norm=1.0)
    assert clipped.bytes_per_param() == 40
    one_clips = [{"params": [matrix], "max_grad_norm": 1.0}, {"params": [bias]}]
    assert AdamW(one_clips, acceleration="win").bytes_per_param() == 40  # the norm is over all gradients
    half = AdamW([torch.nn.Parameter(matrix.detach().bfloat16())], acceleration="win")
    assert half.bytes_per_param() == 2 * 3 + 8 * 3


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda optimizer: pickle.loads(pickle.dumps(optimizer))])
def test_a_copy_takes_another_group(copied):
    """A vector that the copy has from the start is no flat piece of something, whatever is added later."""
    optimizer = copied(AdamW(parameters([(5,)], torch.float32), max_grad_norm=1.0))
    optimizer.add_param_group({"params": parameters([(3, 4)], torch.float32)})
    for group in optimizer.param_groups:
        group["params"][0].grad = torch.ones_like(group["params"][0])
    optimizer.step()
    assert len(optimizer.state) == 2
