"""Levels of state over many steps: no rounding is gathered, small steps of half precision are not lost."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from hf_winopt import LAMB, SGD, AdaL, Adam, AdamW, Adan
from hf_winopt.optim import RuleOptimizer
from tests.optim.leveled import BLOCKED, LEVELS, LR, everything, go_on, model, optimizer_of, same
from tests.optim.test_weights_are_the_truth import NEAR
from tests.rules import encodings_oracle as oracle

STEPS = 5000
SHAPE = (32, 128)
EVERY_LEVEL = pytest.mark.parametrize("level", LEVELS)


def conservative(p: torch.Tensor, state: dict[str, torch.Tensor]) -> np.ndarray:
    """`x = z - d`, decoded in float64 by what is written of the encodings."""
    gap = state["rounding" if "rounding" in state else "x_gap"].numpy()
    if "rounding" in state:
        distance = oracle.remainder_decoded(gap)
    elif "x_gap_scale" in state:
        distance = oracle.s8_decoded(gap, state["x_gap_scale"].double().numpy())
    else:
        distance = gap.astype(np.float64)
    return p.detach().double().numpy() - distance


@pytest.mark.parametrize(
    "cls, acceleration, dtype, level, within",
    [
        (AdamW, "win", torch.float32, "8bit", 0.01),
        (SGD, "win2", torch.float32, "compact", 0.01),
        (SGD, "win", torch.bfloat16, "compact", 0.05),
        (SGD, "none", torch.bfloat16, "compact", 0.05),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_x_is_where_float64_has_it(cls, acceleration, dtype, level, within):
    """Without memory of gradients a direction depends on nothing but its own."""
    generator = torch.Generator().manual_seed(1)
    p = torch.nn.Parameter(torch.randn(SHAPE, generator=generator).to(dtype))
    memory = {"betas": (0, 0), "eps": 1.0} if cls is AdamW else {"momentum": 0.0}
    optimizer = cls(
        [p], LR, weight_decay=0.0, acceleration=acceleration, state=level, backend="eager", **memory
    )  # its factor would be rounded to float32, alike at every step
    x, squares = p.detach().double().numpy(), 0.0
    for _ in range(STEPS):
        p.grad = torch.randn(SHAPE, generator=generator).to(dtype)
        optimizer.step()
        u = p.grad.double().numpy()
        u = u / (np.abs(u) + 1) if cls is AdamW else u
        x, squares = x - LR * u, squares + np.mean(u * u)
    off = conservative(p, optimizer.state[p]) - x
    assert np.sqrt(np.mean(np.square(off))) < within * LR * np.sqrt(squares / STEPS)


# small steps of half precision ---------------------------------------------------------------------------------------

Make = Callable[..., RuleOptimizer]

FAMILIES: dict[str, tuple[Make, dict[str, object]]] = {
    "adamw": (AdamW, {"lr": 2e-3, "weight_decay": 0.0}),
    "adam_l2": (Adam, {"lr": 2e-3}),
    "lamb": (LAMB, {"lr": 2e-3 / 6, "weight_decay": 1e-4}),  # |w| is about 6
    "sgd": (SGD, {"lr": 2e-3}),
    "adan": (Adan, {"lr": 2e-3}),
    "adal": (AdaL, {"lr": 2e-3}),
}
DESCENT = 200
OFF = 0.2
"""How far the weights begin from where the loss is 0, about: six units in the last place of a bf16 above 4."""


def loss_left(make: Make, dtype: torch.dtype, **options: object) -> float:
    """Of a square, as a share of what it was, after steps that are lost to bf16 by themselves, and in part to fp16."""
    generator = torch.Generator().manual_seed(4)
    begin = 4 + 3.9 * torch.rand(32, 128, generator=generator)
    begin = begin.bfloat16()
    target = begin.float() + OFF * torch.randn(32, 128, generator=generator).clamp(-1, 1)
    p = torch.nn.Parameter(begin.to(dtype, copy=True))
    optimizer = make([p], backend="eager", **options)
    for _ in range(DESCENT):
        p.grad = (p.detach().float() - target).to(dtype)
        optimizer.step()
    return ((p.detach().float() - target).square().mean() / (begin.float() - target).square().mean()).item()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("acceleration", ["none", "win"])
@pytest.mark.parametrize("name", FAMILIES)
def test_half_precision_comes_as_far_as_float32(name, acceleration, dtype):
    """But for the rounding of the weights themselves."""
    make, options = FAMILIES[name]
    options = {**options, "acceleration": acceleration}
    right = loss_left(make, torch.float32, **options)
    assert right < 0.04
    for level in ("float32", "8bit") if dtype == torch.bfloat16 else ("compact",):
        assert loss_left(make, dtype, state=level, **options) < right + 0.06, level


@EVERY_LEVEL
@pytest.mark.parametrize("name", FAMILIES)
def test_without_what_rounding_takes_it_stands_still(name, level):
    make, options = FAMILIES[name]
    assert loss_left(make, torch.bfloat16, state=level, keep_rounding=False, **options) > 0.5


# what is written into the weights ------------------------------------------------------------------------------------

WRITTEN = [
    "adamw_win",
    "adamw_win2",
    "lamb_win",
    "lamb_win2",
    "sgd_win",
    "sgd_win2",
    "adan_win2",
    "adal_win",
    "adam_l2",
]


@EVERY_LEVEL
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_stays_written(name, dtype, level):
    parameters = model(dtype)
    optimizer = optimizer_of(name, parameters, level)
    go_on(parameters, optimizer, 0)
    with torch.no_grad():
        for p in parameters:
            p.copy_(torch.full_like(p, 7.0))
    go_on(parameters, optimizer, 1, steps=2)
    ulp = 2.0**-5 if dtype == torch.bfloat16 else 0.0
    for p in parameters:
        assert (p.float() - 7.0).abs().max() < NEAR + ulp
        assert dtype == torch.bfloat16 or (p != 7.0).any()


@pytest.mark.parametrize("level", BLOCKED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", WRITTEN)
def test_sam_is_exact(name, dtype, level):
    """Perturbed, gradients taken, and put back: the step is to a bit that of weights that were never perturbed."""
    runs = []
    for perturbs in (False, True):
        parameters = model(dtype)
        optimizer = optimizer_of(name, parameters, level)
        for seed in range(3):
            before = [p.detach().clone() for p in parameters]
            if perturbs:
                with torch.no_grad():
                    for p, was in zip(parameters, before):
                        p.add_(0.05)
                        p.copy_(was)
            go_on(parameters, optimizer, seed, steps=1)
        runs.append(everything(parameters, optimizer))
    assert same(*runs)
