"""Every name on the Triton engine, against numpy float64 written from the formulas alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hf_winopt import OPTIMIZERS, create_optimizer
from tests.optim.test_against_oracle import OPTIONS
from tests.oracle import SPECS
from tests.problems import follows_oracle

SHAPES = ((3, 4), (5,), (0,), (2, 3, 2), (1, 1))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_name(name, device):
    """Where decay, trust ratio and gamma all count. Float64 catches a wrong formula; float32 a wrong type."""
    spec = replace(SPECS[name], weight_decay=0.1)
    for dtype, steps in ((torch.float64, 12), (torch.float32, 5)):
        optimizer = follows_oracle(
            lambda params: create_optimizer(name, params, weight_decay=0.1, backend="triton"),
            spec, dtype, steps=steps, shapes=SHAPES, device=device,
        )  # fmt: skip
        assert optimizer._ready is not None


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=lambda value: str(value))
def test_options(name, options, device):
    """Over many steps where something happens at one of them."""
    steps = 44 if options.keys() & {"agr_steps", "restart_every", "weight_decay_gamma"} else 12
    follows_oracle(
        lambda params: create_optimizer(name, params, backend="triton", **options),
        replace(SPECS[name], **options), torch.float64, steps=steps, shapes=SHAPES[:2], device=device,
    )  # fmt: skip
