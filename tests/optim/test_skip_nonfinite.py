"""`skip_nonfinite=True`: a step whose gradients are not finite is left out, counted and logged."""

import logging
import math
import sys

import pytest
import torch

from hf_winopt import OPTIMIZERS, AdamW, create_optimizer

BACKENDS = [
    "eager",
    "compile",
    pytest.param("triton", marks=pytest.mark.skipif(sys.platform != "linux", reason="no triton")),
]
BAD = [math.nan, math.inf, -math.inf, 1e30]
"""The last is finite, and its square is not: a second moment would never be finite again."""


def make(name, backend, **options):
    torch.manual_seed(2)
    params = [torch.nn.Parameter(torch.randn(shape)) for shape in ((4, 3), (5,), ())]
    return params, create_optimizer(name, params, lr=1e-2, weight_decay=0.1, backend=backend, **options)


def give_gradients(params, t, bad=None):
    generator = torch.Generator().manual_seed(t)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator)
    if bad is not None:
        params[1].grad[3] = bad


def everything(params, optimizer):
    state = [value for state in optimizer.state.values() for value in state.values()]
    return [tensor.detach().clone() for tensor in (*params, *state)]


def same_bits(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("backend", ["eager", BACKENDS[2]])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_left_out_changes_no_bit(name, backend):
    params, optimizer = make(name, backend, skip_nonfinite=True)
    never, plain = make(name, backend)
    for t in range(6):
        bad = BAD[t - 1] if 1 <= t <= 4 else None
        give_gradients(params, t, bad)
        before = everything(params, optimizer)
        optimizer.step()
        assert optimizer.step_was_skipped is (bad is not None)
        if bad is not None:
            assert same_bits(before, everything(params, optimizer))
        else:
            give_gradients(never, t)
            plain.step()
    assert optimizer.skipped_steps == 4
    assert same_bits(everything(params, optimizer), everything(never, plain))


@pytest.mark.parametrize("backend", BACKENDS)
def test_at_the_very_first_step(backend):
    params, optimizer = make("adan_win", backend, skip_nonfinite=True)
    before = [p.detach().clone() for p in params]
    give_gradients(params, 0, math.nan)
    optimizer.step()
    assert same_bits(before, [p.detach() for p in params])
    assert all(state["step"].item() == 0 for state in optimizer.state.values())
    assert optimizer.skipped_steps == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_with_clipping(backend):
    """One norm serves both."""
    params, optimizer = make("adamw_win", backend, skip_nonfinite=True, max_grad_norm=0.5)
    clipped, plain = make("adamw_win", backend, max_grad_norm=0.5)
    for t, bad in enumerate([None, math.inf, None]):
        give_gradients(params, t, bad)
        optimizer.step()
        if bad is None:
            give_gradients(clipped, t)
            plain.step()
            assert torch.equal(optimizer.grad_norm, plain.grad_norm)
    assert optimizer.skipped_steps == 1
    assert same_bits(everything(params, optimizer), everything(clipped, plain))


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_group_asks_for_all(backend):
    torch.manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(3)) for _ in range(2)]
    asks, rest = {"params": params[:1], "skip_nonfinite": True}, {"params": params[1:]}
    optimizer = AdamW([asks, rest], backend=backend)
    before = [p.detach().clone() for p in params]
    params[0].grad, params[1].grad = torch.ones(3), torch.tensor([0.0, math.nan, 0.0])
    optimizer.step()
    assert same_bits(before, [p.detach() for p in params])


@pytest.mark.parametrize("backend", BACKENDS)
def test_under_amp_an_overflow_is_counted_too(backend):
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    params, optimizer = make("adamw_win", backend, skip_nonfinite=True)
    for overflows in (False, True, False):
        optimizer.zero_grad()
        scaler.scale(sum((p**2).sum() for p in params)).backward()
        if overflows:
            params[0].grad[0, 0] = math.inf
        scaler.step(optimizer)
        scaler.update()
        assert optimizer.step_was_skipped is overflows
    assert optimizer.skipped_steps == 1


def test_each_step_left_out_is_logged(caplog):
    params, optimizer = make("adamw_win", "eager", skip_nonfinite=True)
    with caplog.at_level(logging.WARNING, "hf_winopt"):
        for t, bad in enumerate([None, math.nan, None, math.inf]):
            give_gradients(params, t, bad)
            optimizer.step()
    assert [record.getMessage() for record in caplog.records] == [
        "AdamW left out a step: the norm of all gradients is nan; 1 left out so far",
        "AdamW left out a step: the norm of all gradients is inf; 2 left out so far",
    ]


def test_a_checkpoint_does_not_turn_it_off():
    _, without = make("adamw_win", "eager")
    params, optimizer = make("adamw_win", "eager", skip_nonfinite=True)
    optimizer.load_state_dict(without.state_dict())
    give_gradients(params, 0, math.nan)
    optimizer.step()
    assert optimizer.skipped_steps == 1


def test_without_it_a_gradient_that_is_no_number_is_stepped_with_as_in_torch():
    params, optimizer = make("adamw_d", "eager", weight_decay_gamma=1.0)
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in params]
    torchs = torch.optim.AdamW(theirs, lr=1e-2, weight_decay=0.1)
    for t, bad in enumerate([None, math.nan, None]):
        for each, stepping in ((params, optimizer), (theirs, torchs)):
            give_gradients(each, t, bad)
            stepping.step()
    assert optimizer.step_was_skipped is None
    for a, b in zip(params, theirs):
        assert torch.equal(a.isnan(), b.isnan())
    assert params[1].isnan().sum() == 1


def test_what_it_costs_to_read():
    _, optimizer = make("adamw_win", "eager", skip_nonfinite=True)
    assert optimizer.bytes_per_param() == OPTIMIZERS["adamw_win"].bytes_per_param + 4


def test_the_count_stays_where_it_is_when_the_norm_comes_from_elsewhere():
    """A first step without gradients has a norm on the CPU, whatever the device of the parameters."""
    p = torch.nn.Parameter(torch.ones(2))
    optimizer = AdamW([p], skip_nonfinite=True)
    optimizer.step()
    p.grad = torch.tensor([math.nan, 0.0])
    optimizer.step()
    assert optimizer.skipped_steps == 1
