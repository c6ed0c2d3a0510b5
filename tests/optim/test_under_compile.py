"""Training with a compiled model, or a compiled training step, is not disturbed by the optimizer."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.utils import counters

from hf_winopt import create_optimizer

ENGINES = ["eager", "triton"]


def task(backend, lr=1e-2):
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.GELU(), torch.nn.Linear(8, 1))
    return model, create_optimizer("adamw_win2", model.parameters(), lr=lr, backend=backend)


def train(model, optimizer, steps, one_step):
    x = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))
    for t in range(steps):
        optimizer.param_groups[0]["lr"] = 1e-2 / (t + 1)
        one_step(model, optimizer, x)
    return [p.detach() for p in model.parameters()]


def one_step(model, optimizer, x):
    loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.fixture(autouse=True)
def _fresh_counters():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("backend", ENGINES)
def test_a_compiled_model_is_one_graph_compiled_once(backend):
    plain, optimizer = task(backend)
    expected = train(plain, optimizer, 5, one_step)
    model, optimizer = task(backend)
    counters.clear()
    got = train(torch.compile(model, backend="aot_eager", fullgraph=True), optimizer, 5, one_step)
    torch.testing.assert_close(got, expected)
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize("backend", ENGINES)
def test_a_compiled_training_step_is_cut_at_the_step_and_nowhere_within(backend):
    plain, optimizer = task(backend)
    expected = train(plain, optimizer, 5, one_step)
    model, optimizer = task(backend)
    counters.clear()
    got = train(model, optimizer, 5, torch.compile(one_step, backend="aot_eager"))
    torch.testing.assert_close(got, expected)
    ours = [reason for reason in counters["graph_break"] if "hf_winopt" in reason or "RuleOptimizer" in reason]
    assert all("RuleOptimizer.step" in reason for reason in ours)
    assert len(ours) <= 1
    assert counters["stats"]["unique_graphs"] == 1  # the model and its loss; nothing of the optimizer
