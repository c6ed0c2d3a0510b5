"""Step counts are float32, as torch's are, and end at 2^24: what a step is then."""

from __future__ import annotations

import pytest
import torch

from hf_winopt import OPTIMIZERS, create_optimizer
from hf_winopt.rules import coefficients

LAST = 2**24
"""The last number that float32 reaches by adding one."""


def near_the_end(name, before=2, **options):
    """An optimizer that has so many steps to go until the last that is counted."""
    torch.manual_seed(0)
    p = torch.nn.Parameter(torch.randn(5, 3))
    optimizer = create_optimizer(name, [p], lr=1e-3, backend="eager", **options)
    p.grad = torch.randn(5, 3)
    optimizer.step()
    optimizer.state[p]["step"].fill_(LAST - before)
    return p, optimizer


def counts(p, optimizer, steps):
    found = []
    for _ in range(steps):
        p.grad = torch.randn(5, 3)
        optimizer.step()
        found.append(int(optimizer.state[p]["step"].item()))
    return found


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_count_stays_and_the_parameters_move_on(name):
    p, optimizer = near_the_end(name, weight_decay=0.1)
    assert counts(p, optimizer, 4) == [LAST - 1, LAST, LAST, LAST]
    before = p.detach().clone()
    counts(p, optimizer, 1)
    assert torch.isfinite(p).all() and not torch.equal(p, before)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_a_step_is_made_of_has_long_been_the_same(name):
    """So that it does no harm: with the names' own numbers a step beyond is to float64's last digits the one before."""
    row = OPTIMIZERS[name]
    hyper = {**row.options, "weight_decay": 0.1}
    at, beyond = (coefficients(row.cls.rule(hyper), hyper, t) for t in (LAST, 3 * LAST))
    assert at == pytest.approx(beyond, rel=1e-15, abs=1e-70)


def test_a_restart_at_the_last_count_still_happens_and_none_after_it():
    p, optimizer = near_the_end("adan", restart_every=LAST)
    assert counts(p, optimizer, 4) == [LAST - 1, LAST, 1, 2]
    p, optimizer = near_the_end("adan", restart_every=LAST + 1)
    assert counts(p, optimizer, 4) == [LAST - 1, LAST, LAST, LAST]


def test_agr_ends_before_the_last_count_or_never():
    moved = {}
    for agr_steps in (LAST - 1, LAST, None):
        p, optimizer = near_the_end("adamw_agr", agr_steps=agr_steps)
        counts(p, optimizer, 4)
        moved[agr_steps] = p.detach().clone()
    assert torch.equal(moved[LAST], moved[None]) and not torch.equal(moved[LAST - 1], moved[None])
