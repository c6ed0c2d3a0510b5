"""Gradients that are not finite, without AMP: what they make of a parameter is what torch's optimizers make of it."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import Parameter

from hf_winopt import OPTIMIZERS, create_optimizer
from tests.fuzz.options import chosen
from tests.fuzz.tally import Outcome, counted
from tests.fuzz.training import gradient, same

SHAPES = ((3, 4), (5,), (), (2, 3, 2))
STEPS = 4
BY_ELEMENT = [name for name, row in OPTIMIZERS.items() if not row.rule.takes_sums]
# Adan has no counterpart in torch. Win moves other than what it accelerates does, but by the same direction.
LIKE_TORCHS = [name for name in BY_ELEMENT if "adan" not in name]
NO_NUMBERS = [math.nan, math.inf, -math.inf]
HUGE = [1e20, -1e30, 3e38]  # in float32 their squares are not finite, and the last is not once it is scaled up

Gradients = list[list[Tensor | None]]


@st.composite
def gradients(draw: st.DrawFn, dtype: torch.dtype, values: list[float]) -> tuple[Gradients, Gradients]:
    """Of every step and parameter, finite ones; and the same with some of these values among them, once or twice."""
    clean: Gradients = [
        [
            gradient(torch.empty(shape, dtype=dtype), 1.0, 10 * t + i) if draw(st.integers(0, 6)) else None
            for i, shape in enumerate(SHAPES)
        ]
        for t in range(STEPS)
    ]
    hit = [[None if g is None else g.clone() for g in grads] for grads in clean]
    for _ in range(draw(st.integers(1, 2))):
        g = hit[draw(st.integers(0, 1))][draw(st.integers(0, len(SHAPES) - 1))]
        if g is not None:
            g.view(-1)[draw(st.integers(0, g.numel() - 1))] = draw(st.sampled_from(values))
    return clean, hit


def parameters(dtype: torch.dtype) -> list[Parameter]:
    return [Parameter(gradient(torch.empty(shape, dtype=dtype), 1.0, 50 + i)) for i, shape in enumerate(SHAPES)]


def stepped(params: list[Parameter], optimizer: torch.optim.Optimizer, grads: Gradients, clip: float = 0.0) -> None:
    for of_step in grads:
        for p, g in zip(params, of_step):
            p.grad = None if g is None else g.clone()
        if clip:
            torch.nn.utils.clip_grad_norm_(params, clip)
        optimizer.step()


def torchs(name: str, params: list[Parameter], options: dict[str, Any]) -> torch.optim.Optimizer:
    """torch's optimizer of the same family with the same options, as far as it has them."""
    row = OPTIMIZERS[name]
    known = ("lr", "betas", "eps", "weight_decay", "maximize", "momentum", "dampening", "nesterov", "momentum_decay")
    own = {option: value for option, value in {**row.options, **options}.items() if option in known}
    if name == "nadamw":
        return torch.optim.NAdam(params, decoupled_weight_decay=True, **own)
    return getattr(torch.optim, row.cls.__name__)(params, **own)


@given(
    st.data(),
    st.sampled_from(LIKE_TORCHS),
    st.sampled_from([torch.float32, torch.float64]),
    st.sampled_from([NO_NUMBERS, HUGE]),
)
@counted
def test_the_same_elements_as_with_torchs(
    data: st.DataObject, name: str, dtype: torch.dtype, values: list[float]
) -> Outcome:
    """In the types that torch's optimizers compute in too: their state of 16-bit parameters has 16 bits."""
    _, hit = data.draw(gradients(dtype, values))
    options = data.draw(chosen(name)) | {"skip_nonfinite": False}
    clip = options.pop("max_grad_norm", 0.0)
    ours, theirs = parameters(dtype), parameters(dtype)
    stepped(ours, create_optimizer(name, ours, max_grad_norm=clip, **options), hit)
    stepped(theirs, torchs(name, theirs, options), hit, clip)
    for p, q in zip(ours, theirs):
        assert torch.equal(p.isfinite(), q.isfinite())
    return "trained"


@given(st.data(), st.sampled_from(list(OPTIMIZERS)), st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
@counted
def test_nothing_else_is_touched(data: st.DataObject, name: str, dtype: torch.dtype) -> Outcome:
    """What is hit is no longer finite; all else has the bits that it would have had.

    By element, or by parameter where a rule takes sums over one. (With `max_grad_norm` everything hangs together.)
    """
    clean, hit = data.draw(gradients(dtype, NO_NUMBERS))
    options = data.draw(chosen(name)) | {"skip_nonfinite": False}
    options.pop("max_grad_norm", None)
    ours, spared = parameters(dtype), parameters(dtype)
    optimizer = create_optimizer(name, ours, **options)
    stepped(ours, optimizer, hit)
    stepped(spared, create_optimizer(name, spared, **options), clean)
    whole = optimizer.rule(optimizer.param_groups[0]).takes_sums
    for i, (p, q) in enumerate(zip(ours, spared)):
        touched = torch.zeros(p.shape, dtype=torch.bool)
        for g in (grads[i] for grads in hit):
            if g is not None:
                touched |= ~g.isfinite()
        assert not p.isfinite()[touched].any()
        if not (whole and touched.any()):
            assert same(p.detach()[~touched], q.detach()[~touched])
    return "trained"


@given(st.data(), st.sampled_from(list(OPTIMIZERS)), st.sampled_from([torch.float32, torch.bfloat16, torch.float64]))
@counted
def test_steps_that_are_left_out_have_not_been(data: st.DataObject, name: str, dtype: torch.dtype) -> Outcome:
    _, hit = data.draw(gradients(dtype, NO_NUMBERS))
    options = data.draw(chosen(name)) | {"skip_nonfinite": True}
    ours, spared = parameters(dtype), parameters(dtype)
    optimizer, other = create_optimizer(name, ours, **options), create_optimizer(name, spared, **options)
    stepped(ours, optimizer, hit)
    whole = [grads for grads in hit if all(g is None or g.isfinite().all() for g in grads)]
    stepped(spared, other, whole)
    assert optimizer.skipped_steps == len(hit) - len(whole) and other.skipped_steps == 0
    for p, q in zip(ours, spared):
        assert same(p.detach(), q.detach()) and same(optimizer.state[p], other.state[q])
    return "trained"


@pytest.mark.skipif(sys.platform != "linux", reason="no triton")
@settings(max_examples=max(4, settings().max_examples // 20))  # Triton's interpreter is slow
@given(
    st.data(),
    st.sampled_from(list(OPTIMIZERS)),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.sampled_from([NO_NUMBERS, HUGE]),
)
@counted
def test_the_same_elements_with_triton(
    data: st.DataObject, name: str, dtype: torch.dtype, values: list[float]
) -> Outcome:
    _, hit = data.draw(gradients(dtype, values))
    options = data.draw(chosen(name)) | {"backend": "eager"}
    eager, triton = parameters(dtype), parameters(dtype)
    stepped(eager, create_optimizer(name, eager, **options), hit)
    with np.errstate(all="ignore"):  # what interprets it is numpy, where there is no GPU
        stepped(triton, create_optimizer(name, triton, **options | {"backend": "triton"}), hit)
    for p, q in zip(eager, triton):
        assert torch.equal(p.isfinite(), q.isfinite())
    return "trained"
