"""NAdamW against torch's NAdam, in float64 to its last digits, and what the look ahead of the moments needs."""

from __future__ import annotations

import pytest
import torch

from hf_winopt import NAdamW, create_optimizer
from hf_winopt.rules import Rule, coefficients
from hf_winopt.rules.moments import LONG_OF_NADAM
from tests.problems import parameters, warm_up

OPTIONS = [
    {},
    {"weight_decay": 0.1, "momentum_decay": 0.3},
    {"betas": (0.0, 0.9), "eps": 1e-3},
    {"betas": (0.999, 0.99), "momentum_decay": 2.0, "maximize": True},
    {"momentum_decay": 0.0},
]


@pytest.fixture
def in_float64():
    """torch keeps the product of its momenta in the default type: in float32 it has 7 digits."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def both(options, decoupled):
    mine = parameters([(4, 3), (5,), ()], torch.float64)
    yours = [torch.nn.Parameter(p.detach().clone()) for p in mine]
    options = {"weight_decay": 0.05, **options}
    ours = NAdamW(mine, lr=1e-2, decay=None if decoupled else "l2", **options)
    return mine, yours, ours, torch.optim.NAdam(yours, lr=1e-2, decoupled_weight_decay=decoupled, **options)


def step_both(mine, yours, optimizers, steps, start=0):
    for t in range(start, start + steps):
        for i, (p, q) in enumerate(zip(mine, yours)):
            p.grad = q.grad = None if (i + t) % 5 == 0 else torch.randn_like(p)
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = warm_up(t)
            optimizer.step()


@pytest.mark.parametrize("decoupled", [True, False])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_equal_to_torch_in_float64(options, decoupled, in_float64):
    mine, yours, *optimizers = both(options, decoupled)
    step_both(mine, yours, optimizers, 200)
    torch.testing.assert_close(mine, yours, rtol=1e-12, atol=1e-12)


def test_goes_on_from_torchs_state_dict(in_float64):
    mine, yours, ours, theirs = both({}, decoupled=True)
    step_both(yours, mine, [theirs], 7)
    with torch.no_grad():
        for p, q in zip(mine, yours):
            p.copy_(q)
    ours.load_state_dict(theirs.state_dict())
    assert all("mu_product" not in state for state in ours.state.values())
    step_both(mine, yours, [ours, theirs], 20, start=7)
    torch.testing.assert_close(mine, yours, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("momentum_decay", [1e-6, 4e-3, 0.1, 0.4, 3.0])
@pytest.mark.parametrize("beta1", [0.9, 0.9999, 1 - 1e-9])
def test_the_product_of_momenta_is_long_enough(beta1, momentum_decay):
    """Of 50,000 factors `LONG_OF_NADAM` are multiplied out."""
    t, rule = 50 * LONG_OF_NADAM, Rule(moments="nadam")
    hyper = {"lr": 1.0, "weight_decay": 0.0, "betas": (beta1, 0.99), "eps": 1.0, "momentum_decay": momentum_decay}
    k = torch.arange(1, t + 2, dtype=torch.float64)
    mu = beta1 * (1 - 0.5 * 0.96 ** (k * momentum_decay))
    before, after = 1 - mu[:-1].prod(), 1 - mu.prod()
    of_h = (1 - mu[-2]) / before
    c = coefficients(rule, hyper, t)
    assert c["floor"] == pytest.approx(1 / of_h.item(), rel=1e-9)
    assert c["m_in_u"] == pytest.approx((mu[-1] / after / of_h).item(), rel=1e-9)


def test_costs_what_adamw_costs():
    p = torch.nn.Parameter(torch.zeros(100, 100))
    optimizer = create_optimizer("nadamw", [p])
    p.grad = torch.ones_like(p)
    optimizer.step()
    assert optimizer.bytes_per_param() == 28
    assert optimizer.state_bytes() == 8 * p.numel() + 4


@pytest.mark.parametrize("bad", [-0.1, float("nan"), "0.1", True])
def test_a_bad_momentum_decay_is_named(bad):
    with pytest.raises(ValueError, match="momentum_decay must be"):
        NAdamW([torch.nn.Parameter(torch.zeros(2))], momentum_decay=bad)
