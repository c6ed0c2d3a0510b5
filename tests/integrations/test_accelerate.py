"""Our optimizers in an ordinary Accelerate loop, and under a GradScaler."""

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch.utils.data import DataLoader, TensorDataset

from hf_winopt import create_optimizer

NAMES = ("adamw_win", "adan_win_agr", "lamb_win2")


@pytest.fixture(autouse=True)
def _fresh_accelerate():
    """Accelerate keeps its device for the whole process, other tests' too."""
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)


def prepared(name, batch_size, accumulation, scaler=None, backend="auto", **options):
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulation)
    accelerator.scaler = scaler
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    optimizer = create_optimizer(name, model.parameters(), lr=1e-2, weight_decay=0.1, backend=backend, **options)
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


@pytest.mark.parametrize("backend", ["eager", "compile", "triton"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_skipped_step_is_reported_and_the_schedule_waits(backend, accumulation):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    accelerator, model, optimizer, data, scheduler = prepared(
        "adamw_win", 8, accumulation, scaler, backend, max_grad_norm=1.0
    )
    weight = model[0].weight
    overflow, happened = (1, 2, 5), []
    for i, (inputs, targets) in enumerate(data):
        with accelerator.accumulate(model):
            before, rate = weight.detach().clone(), scheduler.get_last_lr()
            accelerator.backward(torch.nn.functional.mse_loss(model(inputs), targets))
            if i in overflow:
                weight.grad[0, 0] = float("inf")
            optimizer.step()
            scheduler.step()
            if accelerator.sync_gradients:
                skipped = accelerator.optimizer_step_was_skipped
                happened.append(skipped)
                assert torch.equal(before, weight) is (skipped or rate == [0.0])
                assert (scheduler.get_last_lr() == rate) is skipped or rate == [1e-2]
            optimizer.zero_grad()
    expected = [any(i in overflow for i in range(j, j + accumulation)) for j in range(0, 8, accumulation)]
    assert happened == expected
    assert scheduler.scheduler.last_epoch == len(expected) - sum(expected)
    assert optimizer.state[weight]["step"].item() == len(expected) - sum(expected)
    assert scaler.get_scale() == 2.0**8 / 2 ** sum(expected)


def test_other_optimizers_report_as_ever():
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    p = torch.nn.Parameter(torch.ones(2))
    accelerator = Accelerator(cpu=True)
    accelerator.scaler = scaler
    optimizer = accelerator.prepare(torch.optim.SGD([p], lr=0.1))
    for value, skipped in ((1.0, False), (float("nan"), True), (2.0, False)):
        accelerator.backward((p * 1.0).sum())
        p.grad.fill_(value)
        optimizer.step()
        assert accelerator.optimizer_step_was_skipped is skipped
