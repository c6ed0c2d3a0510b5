"""Any shape, type, layout and hyper-parameter, drawn by Hypothesis, against the oracle."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_winopt import OPTIMIZERS, create_optimizer
from tests.oracle import SPECS, Oracle
from tests.problems import as_array

# The last two round the parameter at each of six steps; what the state holds stays float32.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-3, torch.bfloat16: 3e-2, torch.float16: 4e-3}
shapes = st.lists(st.lists(st.integers(0, 5), max_size=4).map(tuple), min_size=1, max_size=4)
share = st.floats(0.0, 0.999)


@st.composite
def options(draw, name):
    """Options that the name takes, in the whole of their range."""
    row = OPTIMIZERS[name]
    drawn = {
        "weight_decay": draw(st.floats(0, 1)),
        "weight_decay_gamma": draw(st.floats(0.5, 1)),
        "max_grad_norm": draw(st.sampled_from([0.0, 0.1, 10.0])),
        "maximize": draw(st.booleans()),
        "reckless_steps": (draw(st.floats(0.1, 10)), draw(st.floats(0.1, 20))),
    }
    if "betas" in row.options:
        drawn["betas"] = tuple(draw(share) for _ in row.options["betas"])
        drawn["eps"] = draw(st.floats(1e-8, 1e-2))
    if "always_adapt" in row.options:
        drawn["always_adapt"] = draw(st.booleans())
    if "momentum" in row.options:
        drawn["momentum"], drawn["dampening"] = draw(share), draw(share)
    if "restart_every" in row.options:
        drawn["restart_every"] = draw(st.integers(0, 4))
    if row.fixed.get("agr"):
        drawn["agr_steps"] = draw(st.none() | st.integers(0, 6))
    return drawn


def laid_out(tensor: torch.Tensor, layout: str) -> torch.Tensor:
    if layout == "transposed" and tensor.ndim >= 2:
        return tensor.transpose(0, 1).contiguous().transpose(0, 1)
    if layout == "strided" and tensor.ndim >= 1:
        return torch.stack([tensor, tensor], dim=-1)[..., 0]
    return tensor


@settings(max_examples=150)
@given(st.data())
def test_any_input(data):
    name = data.draw(st.sampled_from(list(OPTIMIZERS)))
    own = data.draw(options(name))
    layout = data.draw(st.sampled_from(["contiguous", "transposed", "strided"]))
    dtype = data.draw(st.sampled_from(list(TOLERANCE)))
    if dtype.itemsize == 2 and create_optimizer(name, [torch.ones(1)]).rule(OPTIMIZERS[name].options).decay == "l2":
        own["weight_decay"] = 0.0  # a gradient that contains the rounded z can turn its sign by it
    torch.manual_seed(data.draw(st.integers(0, 1000)))
    params = [torch.nn.Parameter(laid_out(torch.randn(s, dtype=dtype), layout)) for s in data.draw(shapes)]
    optimizer = create_optimizer(name, params, **own)
    oracle = Oracle([as_array(p) for p in params], replace(SPECS[name], **own))
    for _ in range(6):
        lr = data.draw(st.sampled_from([0.0, 1e-3, 0.1]))
        grads = [None if data.draw(st.booleans()) and i else torch.randn_like(p) for i, p in enumerate(params)]
        for p, g in zip(params, grads):
            p.grad = g
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
        oracle.step([None if g is None else as_array(g) for g in grads], lr=lr)
    tolerance = TOLERANCE[dtype]
    for p, z in zip(params, oracle.params):
        assert p.stride() == laid_out(p.detach(), "as it is").stride()
        scale = max(1.0, float(np.max(np.abs(z), initial=0.0)))
        np.testing.assert_allclose(as_array(p), z, rtol=tolerance, atol=tolerance * scale)
        assert not math.isnan(float(p.detach().double().sum()))
