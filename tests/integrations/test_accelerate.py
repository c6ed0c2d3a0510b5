"""Our optimizers in an ordinary Accelerate loop, and under a GradScaler."""

import pytest
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, TensorDataset

from hf_winopt import create_optimizer

NAMES = ("adamw_win", "adan_win_agr", "lamb_win2")


def prepared(name, batch_size, accumulation):
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulation)
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    optimizer = create_optimizer(name, model.parameters(), lr=1e-2, weight_decay=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: min(1.0, t / 4))
    inputs = torch.randn(64, 6)
    data = DataLoader(TensorDataset(inputs, inputs.sum(1, keepdim=True)), batch_size=batch_size)
    return accelerator, *accelerator.prepare(model, optimizer, data, scheduler)


def train(accelerator, model, optimizer, data, scheduler):
    """One epoch; the weights."""
    for inputs, targets in data:
        with accelerator.accumulate(model):
            accelerator.backward(torch.nn.functional.mse_loss(model(inputs), targets))
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    return [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize("name", NAMES)
def test_accumulated_batches_step_as_whole_ones(name):
    whole, parts = train(*prepared(name, 16, 1)), train(*prepared(name, 4, 4))
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_saved_state_goes_on_to_the_same_bits(name, tmp_path):
    run = prepared(name, 16, 1)
    train(*run)
    run[0].save_state(str(tmp_path))
    expected = train(*run)
    other = prepared(name, 16, 1)
    other[0].load_state(str(tmp_path))
    assert all(torch.equal(a, b) for a, b in zip(train(*other), expected))


def test_a_grad_scaler_skips_an_overflow_and_unscales_the_rest():
    p, q = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    scaled, plain = (create_optimizer("adamw_win", [param], lr=0.1) for param in (p, q))
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for factor in (1.0, float("inf"), 2.0):
        scale = scaler.get_scale()
        p.grad = torch.full((3,), factor * scale)
        scaler.scale(torch.ones(1))  # a scaler works from its first loss on
        scaler.step(scaled)
        scaler.update()
        if factor != float("inf"):
            q.grad = torch.full((3,), factor)
            plain.step()
    assert torch.equal(p, q)
    assert scaled.state[p]["step"] == 2
