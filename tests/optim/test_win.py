"""Win around torch's optimizers: the numbers of docs/math.md 3b, and a real Optimizer in every way that a user sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import hf_winopt
from hf_winopt import Win
from tests.problems import as_array, parameters, warm_up

ENGINES = pytest.mark.parametrize("backend", ["eager", "compile"])  # Triton's: tests/engine/triton/test_around.py
BOTH = pytest.mark.parametrize("acceleration", ["win", "win2"])
SHAPES = [(4, 3), (70, 80), (5,), (), (0,), (1, 1)]


def pair(make, ours, dtype=torch.float64, shapes=SHAPES):
    mine = parameters(shapes, dtype)
    yours = [torch.nn.Parameter(p.detach().clone()) for p in mine]
    return mine, yours, make(mine), ours(yours)


def step_all(lists, optimizers, steps, start=0, rate=lambda t: float(warm_up(t))):
    """The same gradients for all, some of them missing, at a rate that begins at 0."""
    for t in range(start, start + steps):
        for i, same in enumerate(zip(*lists)):
            g = None if (i + t) % 7 == 3 else torch.randn_like(same[0])
            for p in same:
                p.grad = None if g is None else g.clone()
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate(t)
            optimizer.step()


@BOTH
@pytest.mark.parametrize(
    ("base", "name", "options"),
    [
        (torch.optim.Adam, "adam_win", {}),
        (torch.optim.Adam, "adam_win", {"betas": (0.7, 0.9), "eps": 1e-3}),
        (torch.optim.SGD, "sgd_win", {"momentum": 0.9}),
        (torch.optim.SGD, "sgd_win", {"momentum": 0.9, "nesterov": True}),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("backend", "steps"), [("eager", (2, 8)), ("eager", (1, 1)), ("eager", (0.5, 3.0)), ("compile", (2, 8))], ids=str
)
def test_around_adam_and_sgd_it_is_the_name_of_that(base, name, options, acceleration, steps, backend):
    mine, yours, *optimizers = pair(
        lambda p: Win(base(p, lr=0.0, **options), acceleration, steps, backend=backend),
        lambda p: hf_winopt.create_optimizer(name.replace("win", acceleration), p, reckless_steps=steps, **options),
    )
    step_all([mine, yours], optimizers, 100)
    torch.testing.assert_close(mine, yours, rtol=1e-12, atol=1e-12)


@BOTH
def test_around_adamw_it_is_the_page(acceleration):
    """The sequences as the paper has them, in numpy, with decoupled decay where `x` is."""
    lr, decay, (b1, b2), eps, (r1, r2) = 1e-2, 0.1, (0.9, 0.999), 1e-8, (2.0, 8.0)
    (p,) = params = parameters([(4, 3)], torch.float64)
    optimizer = Win(torch.optim.AdamW(params, lr, (b1, b2), eps, decay), acceleration)
    z = x = y = as_array(p)
    m = v = np.zeros_like(z)
    for t in range(1, 60):
        p.grad = torch.randn_like(p)
        g = as_array(p.grad)
        optimizer.step()
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        moved = -lr * decay * x - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        x = x + moved
        y = (y + r1 * moved + r1 * x) / (1 + r1)
        if acceleration == "win":
            z = (z + r1 * moved + r1 * x) / (1 + r1)
        else:
            z = (z + r2 * moved + r2 * x + (r2 / r1) * y) / (1 + r2 + r2 / r1)
        np.testing.assert_allclose(as_array(p), z, rtol=1e-12, atol=1e-12)


def test_around_adamw_it_is_near_adamw_win():
    """Decoupled in place of proximal decay: apart by a share of lr squared times weight decay, each step."""
    apart = []
    for lr in (1e-2, 1e-3):
        torch.manual_seed(0)
        mine, yours, *optimizers = pair(
            lambda p: Win(torch.optim.AdamW(p, weight_decay=0.1)),
            lambda p: hf_winopt.AdamW(p, weight_decay=0.1, acceleration="win"),
        )
        step_all([mine, yours], optimizers, 50, rate=lambda t, lr=lr: lr)
        apart.append(max((p - q).abs().max().item() for p, q in zip(mine, yours) if p.numel()))
        assert 0 < apart[-1] < 50 * lr**2 * 0.1 * 3
    assert apart[0] / apart[1] == pytest.approx(100, rel=0.3)


@ENGINES
@BOTH
@pytest.mark.parametrize("state", ["float32", "compact"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_in_fewer_bits_it_stays_near_float64(dtype, state, acceleration, backend):
    mine = parameters(SHAPES, dtype)
    wide = [torch.nn.Parameter(p.detach().double()) for p in mine]
    optimizers = [
        Win(torch.optim.SGD(mine, momentum=0.9), acceleration, state=state, backend=backend),
        Win(torch.optim.SGD(wide, momentum=0.9), acceleration),
    ]
    for _ in range(40):
        for p, q in zip(mine, wide):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.double()
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = 1e-2
            optimizer.step()
    coarse = {torch.float32: 1e-5 if state == "float32" else 5e-3, torch.bfloat16: 0.1, torch.float16: 0.02}[dtype]
    for p, q in zip(mine, wide):
        torch.testing.assert_close(p.double(), q, rtol=coarse, atol=coarse)


@ENGINES
def test_compact_keeps_a_byte(backend):
    (p,) = params = parameters([(64, 256)], torch.float32)
    optimizer = Win(torch.optim.SGD(params, lr=1e-2, momentum=0.9), state="compact", backend=backend)
    p.grad = torch.randn_like(p)
    optimizer.step()
    gaps = {name: value for name, value in optimizer.state[p].items() if "gap" in name}
    assert {name: value.dtype for name, value in gaps.items()} == {"x_gap": torch.int8, "x_gap_scale": torch.float32}
    assert sum(value.nbytes for value in gaps.values()) == p.numel() * (1 + 4 / 128)


# what is written into the weights -------------------------------------------------------------------------------------


@ENGINES
@BOTH
@pytest.mark.parametrize("state", ["float32", "compact"])
def test_what_is_written_into_a_weight_stays(state, acceleration, backend):
    """At a rate of 0 the weights settle where `x` is, which has moved along with what was written."""
    (p,) = params = parameters([(64, 80)], torch.float32)
    optimizer = Win(torch.optim.AdamW(params, lr=1e-2), acceleration, state=state, backend=backend)
    step_all([params], [optimizer], 5, rate=lambda t: 1e-2)
    written = torch.randn_like(p)
    p.data.copy_(written)
    step_all([params], [optimizer], 40, rate=lambda t: 0.0)
    assert (p - written).abs().max() < 0.1  # where it was before is further away than 1
