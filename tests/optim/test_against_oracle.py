"""Every name, by eager and by compiled code, against numpy float64 written from the formulas alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hf_winopt import OPTIMIZERS, create_optimizer
from tests.oracle import SPECS
from tests.problems import SHAPES, follows_oracle

DTYPES = (torch.float64, torch.float32)
LARGE = ((70, 60), *SHAPES)


def test_the_oracle_knows_every_name():
    assert set(SPECS) == set(OPTIMIZERS)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_eager_with_defaults(name, dtype):
    follows_oracle(lambda params: create_optimizer(name, params, backend="eager"), SPECS[name], dtype)


def with_weight_decay(name, backend, dtype):
    """Where decay, trust ratio and gamma all count. Float64 catches a wrong formula; float32 a wrong type."""
    spec = replace(SPECS[name], weight_decay=0.1)
    follows_oracle(
        lambda params: create_optimizer(name, params, weight_decay=0.1, backend=backend), spec, dtype, shapes=LARGE
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_eager_with_weight_decay(name, dtype):
    with_weight_decay(name, "eager", dtype)


@pytest.mark.usefixtures("not_compiled")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_is_compiled_with_weight_decay(name, dtype):
    with_weight_decay(name, "compile", dtype)


OF_EVERY_KIND = (
    "adamw_d",
    "adamw_win",
    "adamw_win2_agr",
    "adam_win",
    "lamb",
    "lamb_win",
    "sgd_win2",
    "adan",
    "adal_win",
)


@pytest.mark.parametrize("name", OF_EVERY_KIND)
def test_compiled_with_weight_decay(name):
    """Every transform, moment and movement as machine code; each program takes seconds to make."""
    with_weight_decay(name, "compile", torch.float32)


OPTIONS = [
    ("adamw_win", {"max_grad_norm": 0.5}),
    ("adamw_win2", {"maximize": True, "reckless_steps": (3.0, 5.0)}),
    ("adamw_agr", {"agr_steps": 20}),
    ("adamw_win", {"decay": "l2", "weight_decay": 0.1}),
    ("adamw_win", {"decay": "in_update", "weight_decay": 0.1}),
    ("adamw_win_agr", {"decay": "l2", "weight_decay": 0.1, "agr_steps": 30, "max_grad_norm": 1.0}),
    ("lamb", {"always_adapt": True}),
    ("lamb_win", {"always_adapt": True, "max_grad_norm": 0.5}),
    ("lamb_win2", {"weight_decay": 0.1, "decay": "in_update"}),
    ("sgd_win", {"nesterov": True, "weight_decay": 0.1}),
    ("sgd_win2", {"dampening": 0.3, "momentum": 0.5}),
    ("sgd_win", {"momentum": 0.0}),
    ("adan", {"restart_every": 9, "weight_decay": 0.02}),
    ("adan_win_agr", {"restart_every": 25, "agr_steps": 40}),
    ("adan_win2", {"betas": (0.9, 0.8, 0.95), "weight_decay_gamma": 0.9, "weight_decay": 0.1}),
    ("adal", {"inverse_sqrt_lr": True, "weight_decay": 0.1, "max_grad_norm": 0.5}),
    ("adal_win", {"decay": "proximal", "weight_decay": 0.1}),
]


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=lambda value: str(value))
def test_options(name, options):
    spec = replace(SPECS[name], **options)
    for dtype in DTYPES:
        follows_oracle(lambda params: create_optimizer(name, params, backend="eager", **options), spec, dtype)
