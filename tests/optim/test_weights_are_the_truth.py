"""What is written into a weight between two steps stays written, whoever did it: Win keeps distances, not weights."""

from __future__ import annotations

import copy
import io

import pytest
import torch

from hf_winopt import create_optimizer
from hf_winopt.optim.registry import OPTIMIZERS

ACCELERATED = [name for name in OPTIMIZERS if OPTIMIZERS[name].rule.acceleration != "none"]
SHAPES = [(40, 30), (9,)]
LR = 1e-3
NEAR = 20 * LR
"""What a step may move: LAMB's and SGD's steps are not of the size of lr."""


def model() -> torch.nn.ParameterList:
    generator = torch.Generator().manual_seed(3)
    return torch.nn.ParameterList([torch.randn(shape, generator=generator) for shape in SHAPES])


def go_on(parameters, optimizer, seed: int, steps: int = 5) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for p in parameters:
            p.grad = torch.randn(p.shape, generator=generator).to(p)
        optimizer.step()


def optimizer_of(name, parameters, backend="eager"):
    return create_optimizer(name, list(parameters), lr=LR, backend=backend)


def loaded(parameters, optimizer, best):
    parameters.load_state_dict(best)


def copied(parameters, optimizer, best):
    with torch.no_grad():
        for p, written in zip(parameters, best.values()):
            p.copy_(written)


def replaced_data(parameters, optimizer, best):
    for p, written in zip(parameters, best.values()):
        p.data = written.clone()


def saved_and_loaded_first(parameters, optimizer, best):
    """The optimizer's checkpoint, then the model's."""
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    parameters.load_state_dict(best)


def saved_and_loaded_last(parameters, optimizer, best):
    saved = io.BytesIO()
    torch.save(optimizer.state_dict(), saved)
    parameters.load_state_dict(best)
    optimizer.load_state_dict(torch.load(io.BytesIO(saved.getvalue()), weights_only=True))


WRITERS = [loaded, copied, replaced_data, saved_and_loaded_first, saved_and_loaded_last]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("name", ACCELERATED)
def test_other_weights_are_gone_on_from(name, write):
    parameters = model()
    optimizer = optimizer_of(name, parameters)
    go_on(parameters, optimizer, 0)
    best = {key: torch.full_like(value, 7.0) for key, value in parameters.state_dict().items()}
    write(parameters, optimizer, best)
    go_on(parameters, optimizer, 1, steps=2)
    for p in parameters:
        assert 0 < (p - 7.0).abs().max() < NEAR


@pytest.mark.parametrize("backend", ["compile", "triton"])
@pytest.mark.parametrize("name", ["adamw_win", "lamb_win2"])
def test_by_every_engine(name, backend):
    parameters = model()
    optimizer = optimizer_of(name, parameters, backend)
    go_on(parameters, optimizer, 0)
    copied(parameters, optimizer, {key: torch.full_like(value, 7.0) for key, value in parameters.state_dict().items()})
    go_on(parameters, optimizer, 1, steps=2)
    for p in parameters:
        assert 0 < (p - 7.0).abs().max() < NEAR


@pytest.mark.parametrize("name", ACCELERATED)
def test_a_shift_of_the_weights_shifts_all_that_follows(name):
    """Without decay nothing depends on where the weights are; LAMB's ratio is 1 then."""
    runs = []
    for shift in (0.0, 8.0):
        parameters = model().double()
        optimizer = create_optimizer(name, list(parameters), lr=LR, weight_decay=0.0, backend="eager")
        go_on(parameters, optimizer, 0)
        with torch.no_grad():
            for p in parameters:
                p.add_(shift)
        go_on(parameters, optimizer, 1)
        runs.append([p.detach() - shift for p in parameters])
    torch.testing.assert_close(*runs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", ["adamw_win", "adan_win2", "sgd_win", "lamb_win"])
def test_weights_that_are_clamped_stay_within(name):
    """As the weights of a critic in WGAN; with `x` apart they came back by the next step."""
    parameters = model()
    optimizer = optimizer_of(name, parameters)
    for seed in range(4):
        go_on(parameters, optimizer, seed, steps=1)
        with torch.no_grad():
            for p in parameters:
                p.clamp_(-0.01, 0.01)
    go_on(parameters, optimizer, 9, steps=1)
    assert max(p.abs().max() for p in parameters) < 0.01 + NEAR


@pytest.mark.parametrize("name", ["adamw_win", "adamw_win2"])
def test_a_merged_adapter_begins_at_nothing(name):
    """ReLoRA's merge sets one matrix to zero: it is to be zero, but for a step."""
    parameters = model()
    optimizer = optimizer_of(name, parameters)
    go_on(parameters, optimizer, 0)
    with torch.no_grad():
        parameters[0].zero_()
    go_on(parameters, optimizer, 1, steps=1)
    assert parameters[0].abs().max() < NEAR


@pytest.mark.parametrize("name", ["adamw_win", "adamw_win2"])
def test_a_detour_through_torchs_adamw(name):
    """torch carries the distances along untouched; the way it went in between stays gone."""
    parameters = model()
    ours = optimizer_of(name, parameters)
    go_on(parameters, ours, 0)
    torchs = torch.optim.AdamW(list(parameters), lr=LR)
    torchs.load_state_dict(ours.state_dict())
    for group in torchs.param_groups:
        group["lr"] = 0.1
    go_on(parameters, torchs, 1, steps=20)
    there = [p.detach().clone() for p in parameters]
    back = optimizer_of(name, parameters)
    back.load_state_dict(torchs.state_dict())
    for group in back.param_groups:
        group["lr"] = LR
    go_on(parameters, back, 2, steps=1)
    for p, before in zip(parameters, there):
        assert 0 < (p - before).abs().max() < NEAR


@pytest.mark.parametrize("backend", ["eager", "compile", "triton"])
def test_a_state_that_somebody_halved_goes_on(backend):
    """As `.half()` over all tensors in reach does it: a distance loses a thousandth of itself, not of the weight."""
    runs = []
    for halves in (False, True):
        parameters = model()
        optimizer = optimizer_of("adamw_win", parameters, backend)
        go_on(parameters, optimizer, 0)
        if halves:
            for state in optimizer.state.values():
                for key in ("exp_avg", "exp_avg_sq", "x_gap"):
                    state[key] = state[key].bfloat16()
        go_on(parameters, optimizer, 1)
        for p in parameters:
            assert optimizer.state[p]["x_gap"].dtype == torch.float32
        runs.append([p.detach() for p in parameters])
    torch.testing.assert_close(*runs, rtol=0, atol=0.1 * LR)


@pytest.mark.parametrize("name", ACCELERATED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_sam_is_exact(name, dtype):
    """Perturbed, gradients taken, and put back: the step is to a bit that of weights that were never perturbed."""
    runs = []
    for perturbs in (False, True):
        parameters = model().to(dtype)
        optimizer = optimizer_of(name, parameters)
        for seed in range(4):
            before = [p.detach().clone() for p in parameters]
            if perturbs:
                with torch.no_grad():
                    for p, was in zip(parameters, before):
                        p.add_(0.05 * torch.ones_like(p))
                        p.copy_(was)
            go_on(parameters, optimizer, seed, steps=1)
        runs.append([*parameters, *(t for state in optimizer.state.values() for t in state.values())])
    assert all(torch.equal(a, b) for a, b in zip(*runs))


# what was kept before ----------------------------------------------------------------------------------------------


def as_of_version_0_1(optimizer) -> dict:
    """The state dict as versions before this one wrote it: sequences under their names."""
    saved = copy.deepcopy(optimizer.state_dict())
    for p, state in zip(optimizer.param_groups[0]["params"], saved["state"].values()):
        x = p.detach().to(state["x_gap"].dtype) - state.pop("x_gap")
        state["x"] = x
        if "y_gap" in state:
            state["y"] = x + state.pop("y_gap")
    return saved


@pytest.mark.parametrize("model_comes", ["first", "last"])
@pytest.mark.parametrize("name", ["adamw_win", "adamw_win2", "lamb_win2", "adan_win", "sgd_win2"])
@pytest.mark.parametrize("backend", ["eager", "compile", "triton"])
def test_checkpoints_of_version_0_1_go_on(name, backend, model_comes):
    parameters = model()
    optimizer = optimizer_of(name, parameters)
    go_on(parameters, optimizer, 0)
    weights, saved = copy.deepcopy(parameters.state_dict()), as_of_version_0_1(optimizer)
    others = model()
    resumed = optimizer_of(name, others, backend)
    if model_comes == "first":
        others.load_state_dict(weights)
    resumed.load_state_dict(saved)
    again = optimizer_of(name, model(), backend)
    again.load_state_dict(copy.deepcopy(resumed.state_dict()))  # saved once more, before any step
    assert {key for state in again.state.values() for key in state} >= {"x"}
    if model_comes == "last":
        others.load_state_dict(weights)
    go_on(parameters, optimizer, 1)
    go_on(others, resumed, 1)
    torch.testing.assert_close([*others], [*parameters], rtol=1e-6, atol=1e-7)
    for p, q in zip(parameters, others):
        assert set(resumed.state[q]) == set(optimizer.state[p])


def test_a_sequence_that_another_rule_kept_is_dropped():
    parameters = model()
    optimizer = optimizer_of("adamw_win2", parameters)
    go_on(parameters, optimizer, 0)
    plain = create_optimizer("adamw_agr", list(parameters))
    plain.load_state_dict(as_of_version_0_1(optimizer))
    go_on(parameters, plain, 1)
    assert set(plain.state[parameters[0]]) == {"step", "exp_avg", "exp_avg_sq"}


@pytest.mark.parametrize(
    "spoil", [lambda x: x * torch.nan, lambda x: x[:3], lambda x: "x"], ids=["nan", "shape", "type"]
)
def test_a_spoiled_sequence_is_refused_by_name(spoil):
    parameters = model()
    optimizer = optimizer_of("adamw_win", parameters)
    go_on(parameters, optimizer, 0)
    saved = as_of_version_0_1(optimizer)
    saved["state"][0]["x"] = spoil(saved["state"][0]["x"])
    with pytest.raises(ValueError, match="x of parameter 0 must be"):
        optimizer.load_state_dict(saved)
