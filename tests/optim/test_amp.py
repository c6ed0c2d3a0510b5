"""Under `torch.amp.GradScaler` the step itself unscales, and after an overflow nothing has happened."""

from __future__ import annotations

import math
import sys

import pytest
import torch

from hf_winopt import OPTIMIZERS, create_optimizer

BACKENDS = [
    "eager",
    "compile",
    pytest.param("triton", marks=pytest.mark.skipif(sys.platform != "linux", reason="no triton")),
]
FEW = ["adamw_win", "adan_win_agr", "lamb_win", "sgd_win2", "adal"]


def make(name, backend, **options):
    torch.manual_seed(2)
    params = [torch.nn.Parameter(torch.randn(shape)) for shape in ((4, 3), (5,))]
    return params, create_optimizer(name, params, lr=1e-2, weight_decay=0.1, backend=backend, **options)


def loss_of(params, t):
    generator = torch.Generator().manual_seed(t)
    return sum((p * torch.randn(p.shape, generator=generator)).sum() + (p**2).sum() for p in params)


def everything(params, optimizer):
    state = [value for state in optimizer.state.values() for value in state.values()]
    return [tensor.detach().clone() for tensor in (*params, *state)]


def amp_step(params, optimizer, scaler, t, overflow=False):
    optimizer.zero_grad()
    scaler.scale(loss_of(params, t)).backward()
    if overflow:
        params[0].grad[1, 1] = math.inf
    scaler.step(optimizer)
    scaler.update()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", FEW)
def test_a_scaled_loss_gives_the_step_of_the_loss(name, backend):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, growth_interval=2)
    ours, optimizer = make(name, backend, max_grad_norm=1.5)
    theirs, plain = make(name, "eager", max_grad_norm=1.5)
    for t in range(5):
        amp_step(ours, optimizer, scaler, t)
        assert optimizer.step_was_skipped is False
        plain.zero_grad()
        loss_of(theirs, t).backward()
        plain.step()
        assert plain.step_was_skipped is None
        torch.testing.assert_close(optimizer.grad_norm, plain.grad_norm)
    for a, b in zip(everything(ours, optimizer), everything(theirs, plain)):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "backend"), [*((name, "triton") for name in OPTIMIZERS), ("adamw_win", "eager"), ("adan", "compile")]
)
def test_an_overflow_changes_no_bit(name, backend):
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    params, optimizer = make(name, backend, max_grad_norm=1.0)
    amp_step(params, optimizer, scaler, 0)
    before = everything(params, optimizer)
    amp_step(params, optimizer, scaler, 1, overflow=True)
    assert optimizer.step_was_skipped is True
    assert scaler.get_scale() == 2.0
    assert all(torch.equal(a, b) for a, b in zip(before, everything(params, optimizer)))
    amp_step(params, optimizer, scaler, 2)
    assert optimizer.step_was_skipped is False
    assert not torch.equal(before[0], params[0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_overflow_at_the_very_first_step(backend):
    scaler = torch.amp.GradScaler("cpu")
    params, optimizer = make("adan_win", backend)
    before = [p.detach().clone() for p in params]
    amp_step(params, optimizer, scaler, 0, overflow=True)
    assert all(torch.equal(a, b) for a, b in zip(before, params))
    assert all(state["step"].item() == 0 for state in optimizer.state.values())
    amp_step(params, optimizer, scaler, 1)
    theirs, plain = make("adan_win", "eager")
    loss_of(theirs, 1).backward()
    plain.step()
    for a, b in zip(params, theirs):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_that_the_user_unscaled(backend):
    """As Accelerate does to clip them."""
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    ours, optimizer = make("adamw_win", backend)
    theirs, plain = make("adamw_win", "eager")
    for t in range(3):
        optimizer.zero_grad()
        scaler.scale(loss_of(ours, t)).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(ours, 1.0)
        scaler.step(optimizer)
        scaler.update()
        plain.zero_grad()
        loss_of(theirs, t).backward()
        torch.nn.utils.clip_grad_norm_(theirs, 1.0)
        plain.step()
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b)


def test_the_gradients_stay_scaled():
    """They are unscaled where they are read, not in memory: that would be another pass over them."""
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    params, optimizer = make("adamw_win", "eager")
    optimizer.zero_grad()
    scaler.scale(loss_of(params, 0)).backward()
    before = params[0].grad.clone()
    scaler.step(optimizer)
    assert torch.equal(params[0].grad, before)


def test_a_gpu_without_triton_leaves_it_to_the_scaler():
    params = [torch.nn.Parameter(torch.ones(2, device="meta"))]
    assert not create_optimizer("adamw_win", params, backend="eager")._step_supports_amp_scaling
    assert create_optimizer("adamw_win", [torch.ones(2)], backend="eager")._step_supports_amp_scaling
