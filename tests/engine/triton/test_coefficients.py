"""The numbers of a step as the device computes them, against those of the host."""

from __future__ import annotations

import pytest
import torch

from hf_winopt import OPTIMIZERS, create_optimizer
from hf_winopt.engine.triton import columns
from hf_winopt.rules import coefficients
from hf_winopt.rules.encodings import phase

STEPS = (1, 2, 3, 10, 1_000, 1_024, 1_025, 1_000_000)


def one_step(name, t, dtype, device, **options):
    """An optimizer of one parameter that has taken its step `t`, and the coefficients that its kernels used."""
    p = torch.nn.Parameter(torch.ones(2, 2, dtype=dtype).to(device))
    optimizer = create_optimizer(name, [p], backend="triton", **options)
    p.grad = torch.ones_like(p)
    optimizer.step()
    optimizer.state[p]["step"].fill_(t - 1)
    optimizer.step()
    (batch,) = optimizer._ready.plan._devices[0]._batches
    return optimizer, batch.coefs[0]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2.0**-24)], ids=str)
@pytest.mark.parametrize("name", ["adamw_d", "adamw_win2", "adan_win2", "sgd_win", "adam_l2_d", "nadamw"])
def test_bias_corrections_and_all_other_numbers(name, dtype, tolerance, device):
    for t in STEPS:
        optimizer, row = one_step(name, t, dtype, device, lr=3e-4, weight_decay=0.3)
        (group,) = optimizer.param_groups
        expected = coefficients(optimizer.rule(group), group, t)
        for key, value in expected.items():
            column = columns.LAM if key in ("l2", "in_update") else getattr(columns, key.upper())
            assert row[column.value].item() == pytest.approx(value, rel=tolerance, abs=0), (key, t)


def test_every_number_has_its_column():
    for name in OPTIMIZERS:
        optimizer = create_optimizer(name, [torch.nn.Parameter(torch.ones(1))], weight_decay=0.1)
        (group,) = optimizer.param_groups
        for key in coefficients(optimizer.rule(group), group, 1):
            assert key in ("l2", "in_update") or hasattr(columns, key.upper())


def test_betas_of_zero(device):
    _, row = one_step("adamw_win", 2, torch.float64, device, betas=(0.0, 0.0))
    assert row[columns.ROOT.value].item() == 1.0


def test_the_phase_of_the_dither_is_that_of_the_host(device):
    p = torch.nn.Parameter(torch.ones(2).to(device))
    optimizer = create_optimizer("adamw_d", [p], backend="triton")
    p.grad = torch.ones_like(p)
    optimizer.step()
    (batch,) = optimizer._ready.plan._devices[0]._batches
    for t in (*range(2, 100), *range(1000, 10**6, 9973), 2**20, 2**24 - 1, 2**24):
        optimizer._own_state[p]["step"].fill_(t - 1)
        optimizer.step()
        assert batch.coefs[0, columns.PHI.value].item() == phase(t), t


@pytest.mark.parametrize(("every", "done", "next_step"), [(5, 4, 5), (5, 5, 1), (0, 5, 6)])
def test_a_restart_counts_from_one(every, done, next_step, device):
    optimizer, _ = one_step("adan", done + 1, torch.float32, device, restart_every=every)
    (state,) = optimizer.state.values()
    assert state["step"].item() == next_step


@pytest.mark.parametrize(("agr_steps", "transforming"), [(2**24 - 1, 0.0), (2**24, 1.0)])
def test_no_step_is_later_than_the_last_that_float32_counts(agr_steps, transforming, device):
    """As on the host, which reads the count as it is stored."""
    optimizer, row = one_step("adamw_agr", 2**24 + 1, torch.float32, device, agr_steps=agr_steps)
    (state,) = optimizer.state.values()
    assert state["step"].item() == 2**24 and row[columns.TRANSFORMING.value].item() == transforming
