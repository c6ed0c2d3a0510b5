"""Grids of learning rates, and who is compared."""

from __future__ import annotations

import math

import pytest

from hf_winopt.compare import contenders, rates
from hf_winopt.optim.registry import OPTIMIZERS


def test_a_grid_around_a_rate():
    assert rates.around(5e-5) == (1.7e-5, 5e-5, 1.5e-4)


def test_best_is_lowest_and_never_what_diverged():
    assert rates.best({1e-3: 0.5, 1e-2: 0.4, 1e-1: math.inf}) == 1e-2
    assert rates.best({1e-3: 0.5, 1e-2: math.nan}) == 1e-3
    assert rates.best({1e-2: 0.5, 1e-3: 0.5}) == 1e-3  # the lower rate of equals
    assert rates.best({1e-2: math.inf, 1e-3: math.inf}) == 1e-3


def test_a_grid_goes_on_beyond_the_end_that_is_best():
    low, middle, high = ({1e-4: a, 1e-3: b, 1e-2: c} for a, b, c in ((1, 2, 3), (2, 1, 3), (3, 2, 1)))
    assert rates.is_at_end(low) and rates.is_at_end(high) and not rates.is_at_end(middle)
    assert rates.further(low) == 1e-5 and rates.further(high) == 0.1
    assert rates.further(middle) == 1e-5  # for the same budget as the others: towards the second best
    assert rates.further({1e-4: 3, 1e-3: 1, 1e-2: 2}) == 0.1
    assert rates.further({1e-4: 3, 2e-4: 1}) == 4e-4
    assert not rates.is_at_end({1e-3: 1})


def test_auto_grids_follow_the_registry():
    found = contenders.parse("adamw_torch_fused,adamw_win,adan,lamb_win,sgd_win,lion_8bit", "auto", 1e-4)
    assert [contender.rates[1] for contender in found] == pytest.approx([1e-4, 1e-4, 5e-4, 1e-3, 0.1, 2e-5])
    assert len({len(contender.rates) for contender in found}) == 1
    assert [contender.is_ours for contender in found] == [False, True, True, True, True, False]
    assert all(row.lr_scale >= 1 for row in OPTIMIZERS.values())


def test_options_in_brackets():
    one, other = contenders.parse("adamw_win[reckless_steps=2:4,backend=compile],schedule_free_sgd[lr=0.3]", "auto", 1)
    assert (one.name, one.optim_args) == ("adamw_win", "reckless_steps=2:4,backend=compile")
    assert (other.name, other.optim_args, other.rates) == ("schedule_free_sgd", "", (0.1, 0.3, 0.9))
    (own,) = contenders.parse("adan[backend=eager,weight_decay=0.02,adam_beta1=0.9]", "auto", 1)
    assert own.optim_args == "backend=eager"
    assert own.arguments == ("--weight_decay", "0.02", "--adam_beta1", "0.9")


def test_explicit_rates_are_for_all():
    assert {c.rates for c in contenders.parse("adan,sgd", "1e-4,3e-3", 1)} == {(1e-4, 3e-3)}


@pytest.mark.parametrize(
    ("optims", "lrs", "words"),
    [
        ("adamw_wim", "auto", "unknown optimizer 'adamw_wim'; did you mean adamw_win"),
        ("adamw_win,adamw_win", "auto", "names adamw_win twice"),
        ("adamw_win,", "auto", "'' is not of the form"),
        ("adamw_win[reckless_steps]", "auto", "not of the form key=value"),
        ("adamw_win[lr=fast]", "auto", "'fast' is no learning rate"),
        ("adamw_win[lr=1e-3]", "1e-3", "has a learning rate of its own"),
        ("lomo", "auto", r"lomo\[lr=RATE\], or give --lrs"),
        ("adan", "1e-3,1e-4", "must rise"),
        ("adan", "1e-3,0", "'0' is no learning rate"),
        ("adan", "inf", "'inf' is no learning rate"),
    ],
)
def test_what_is_refused(optims, lrs, words):
    with pytest.raises(ValueError, match=words):
        contenders.parse(optims, lrs, 1e-4)
