"""On a linear fit of any shape, from a single number on, every optimizer ends below where it began."""

from __future__ import annotations

import itertools

import pytest
import torch

from hf_winopt import OPTIMIZERS, create_optimizer
from hf_winopt.rules import ACCELERATIONS, DECAYS, TRANSFORMS, Rule
from tests.problems import optimizer_of

SHAPES = [(1, 1), (1, 2), (2, 1), (1, 4), (4, 1), (3, 5), (1,), (4,), ()]


class Fit:
    """`y = x @ true`, to be learned by a parameter of this shape; without two dimensions it stands for a single row."""

    def __init__(self, shape, dtype=torch.float32):
        torch.manual_seed(0)
        self.x = torch.randn(64, shape[0] if len(shape) == 2 else 1, dtype=dtype)
        self.y = self.x @ torch.randn(shape, dtype=dtype).view(self.x.shape[1], -1)
        self.p = torch.nn.Parameter(torch.randn(shape, dtype=dtype) + 3)

    def loss(self):
        return (self.x @ self.p.view(self.x.shape[1], -1) - self.y).square().mean()

    def train(self, optimizer, steps):
        """The losses before and after."""
        before = self.loss().item()
        for _ in range(steps):
            optimizer.zero_grad()
            self.loss().backward()
            optimizer.step()
        return before, self.loss().item()


@pytest.mark.parametrize("backend", ["eager", "triton"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_name(name, backend):
    """With a rate at which each has time to come near; AGR with Adam's moments leaves small tensors little to go by."""
    rate, steps = (0.05, 120) if backend == "eager" else (0.1, 40)
    rule = OPTIMIZERS[name].rule
    left = 1.0 if (rule.transform, rule.moments) == ("agr", "adam") else 0.5
    for shape in SHAPES if backend == "eager" else SHAPES[:2]:
        fit = Fit(shape)
        before, after = fit.train(create_optimizer(name, [fit.p], lr=rate, weight_decay=0.0, backend=backend), steps)
        assert after < left * before, (shape, before, after)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_every_rule_published_or_not(transform):
    """LAMB's ratio too, of matrices of more than one element: one element it can only multiply."""
    kinds = itertools.product(("adam", "adan", "momentum", "nesterov"), ACCELERATIONS, DECAYS, (False, True))
    for moments, acceleration, decay, trust_ratio in kinds:
        if acceleration != "none" and decay == "decoupled":
            continue
        rule = Rule(transform, moments, acceleration, decay, trust_ratio)
        rate = (
            0.02 if trust_ratio or moments in ("adam", "adan") else 0.002
        )  # of momentum, steps are as long as gradients
        for shape in SHAPES[1:4] if trust_ratio else SHAPES[:4]:
            fit = Fit(shape, torch.float64)
            if transform == "adal" and moments in ("momentum", "nesterov") and not trust_ratio:
                fit.p.data.copy_(0.1 * fit.p)  # a gradient by its own norm: quadratic
            options = {"betas": (0.98, 0.92, 0.99)} if moments == "adan" else {}
            before, after = fit.train(optimizer_of(rule, [fit.p], lr=rate, **options), 40)
            assert after < before, (rule, shape, before, after)
