"""The term of Corollary 3, against the formula written out."""

import math

import pytest
import torch

from hf_winopt.analysis import generalization_term

RUN = {"lr": 1e-3, "weight_decay": 0.05, "batch_size": 32, "rho": 0.01}


@pytest.mark.parametrize("decay", ["decoupled", "l2"])
def test_the_formula(decay):
    sigmas, weights = [4.0, 0.25, 1e-4], [0.25, 0.25, 0.5]
    err = 0.0
    for sigma, weight in zip(sigmas, weights):
        decayed = 0.05 if decay == "decoupled" else 0.05 / math.sqrt(sigma)
        x = 2 * 0.01 * 32 * (math.sqrt(sigma) + decayed) / 1e-3
        err += weight * (math.log(x) + 1 / x)
    signs = torch.tensor([1.0, -1.0, 1.0])  # singular values are without sign
    term = generalization_term(torch.tensor(sigmas) * signs, torch.tensor(weights).double(), decay=decay, **RUN)
    assert term.per_dimension == pytest.approx(err)
    assert term.assumption_holds and "does not hold" not in str(term)


def test_where_the_corollary_does_not_hold_it_is_said():
    eigenvalues, weights = torch.tensor([1e-8, 1.0]).double(), torch.tensor([0.75, 0.25]).double()
    term = generalization_term(eigenvalues, weights, lr=1.0, weight_decay=0.0, batch_size=1, rho=1.0)
    assert term.share_below_1 == 0.75 and not term.assumption_holds
    assert "x_i < 1 in 75 % of the dimensions" in str(term)


def test_what_cannot_be_told_from_zero_counts_as_the_smallest_value_that_can():
    eigenvalues, weights = torch.tensor([0.0, 1.0]).double(), torch.tensor([0.5, 0.5]).double()
    floored = generalization_term(eigenvalues, weights, decay="l2", smallest=1e-6, **RUN)
    raised = generalization_term(torch.tensor([1e-6, 1.0], dtype=torch.float64), weights, decay="l2", **RUN)
    assert floored.per_dimension == raised.per_dimension
    assert floored.share_at_floor == 0.5 and raised.share_at_floor == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [("lr", 0.0), ("lr", math.nan), ("batch_size", 0), ("rho", -1.0), ("weight_decay", -0.1), ("decay", "proximal")],
)
def test_bad_numbers_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"{name} must be .*; got {value!r}"):
        generalization_term(torch.ones(1), torch.ones(1), **{**RUN, name: value})
