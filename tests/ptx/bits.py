"""Steps on numbers of all kinds, by the compiled kernels or by the interpreter; all that they leave, in a file.

    python -m tests.ptx.bits executed FILE [TITLE...]
    python -m tests.ptx.bits interpreted FILE [TITLE...]

A program of its own, since in one process Triton either compiles or interprets. What two libraries may round otherwise
is kept out, so that all bits must agree. Betas are powers of two, whose own powers are exact wherever they are taken.
Where a rule takes sums, gradients are multiples of 1/8, whose sums are exact in any order. LAMB's sums are over
parameters and directions and never exact: it is left to the oracle.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

RATES = (1e-2, 0.0, 3e-3)
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
OF_EVERY_TYPE = ("adamw_d", "adamw_win", "sgd_win2", "adan_win2")
"""Between them all moments and all movements."""

AT_LEVELS = (
    ("adamw_win", torch.float32, "8bit"), ("adan_win2", torch.float16, "8bit"), ("sgd_win2", torch.bfloat16, "compact"),
    ("adan_win", torch.float32, "compact"),
)  # fmt: skip
"""Between them all encodings."""

SPECIAL = (
    0.0, -0.0, 1.0, -2.5, 1e-40, -1e-40, 1.2e-38, 6e-8, -3e-5, 3e4, -7e4, 3e38, -3.4e38, math.inf, -math.inf, math.nan,
)  # fmt: skip
"""Zeros, what is subnormal in each type, the largest, what is too large for half precision, infinite, no number."""


@dataclass(frozen=True)
class Case:
    """An optimizer, and what it steps.

    Args:
        exact: gradients are multiples of 1/8; else they are special and any numbers.
        misplaced: a parameter begins at an address that is no multiple of 16.
        scale: what the loss was multiplied by, under AMP, where the second step overflows.
    """

    name: str
    dtype: torch.dtype = torch.float32
    options: dict[str, Any] = field(default_factory=dict)
    exact: bool = False
    misplaced: bool = False
    scale: float = 0.0


def cases() -> Iterator[tuple[str, Case]]:
    from hf_winopt import OPTIMIZERS

    decays = {"weight_decay": 0.1}
    for name, row in OPTIMIZERS.items():
        if not row.rule.takes_sums:
            for dtype in DTYPES if name in OF_EVERY_TYPE else DTYPES[:1]:
                yield f"{name} {dtype}", Case(name, dtype, decays)
        elif not row.rule.trust_ratio:
            yield f"{name} exact", Case(name, exact=True)
    for name, dtype, level in AT_LEVELS:
        yield f"{name} {dtype} {level}", Case(name, dtype, {**decays, "state": level})
    yield "clipped", Case("adamw_win", options={**decays, "max_grad_norm": 1.0}, exact=True)
    yield "misplaced", Case("adamw_win", options=decays, misplaced=True)
    yield "under AMP", Case("adan_win", options=decays, scale=8.0)
    yield "rate in a tensor", Case("adamw_d", options={"lr": torch.tensor(1e-2, dtype=torch.float64)})


def parameters(case: Case) -> list[torch.nn.Parameter]:
    """Special numbers, each beside every one; chunks that are full and that are not; a single number; none."""
    pairs = torch.tensor(SPECIAL, dtype=torch.float64).repeat_interleave(len(SPECIAL))
    drawn = [torch.randn(size, dtype=torch.float64) for size in ((300,), (64, 64), (), (0, 3))]
    values = [t.to(case.dtype) for t in (*drawn, *([] if case.exact else [pairs]))]
    if case.misplaced:
        values.append(torch.randn(301, dtype=case.dtype)[1:])
    return [torch.nn.Parameter(value) for value in values]


def gradient(p: Tensor, case: Case, t: int) -> Tensor:
    generator = torch.Generator().manual_seed(p.numel() + t)
    if case.exact:
        return (torch.randint(-16, 17, p.shape, generator=generator) / 8).to(p.dtype)
    if p.numel() == len(SPECIAL) ** 2:
        return torch.tensor(SPECIAL, dtype=torch.float64).roll(t).repeat(len(SPECIAL)).to(p.dtype)
    return torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype)


def stepped(case: Case) -> Iterator[tuple[str, Tensor]]:
    """Parameters and state after each step."""
    from hf_winopt import create_optimizer

    torch.manual_seed(0)
    params = parameters(case)
    optimizer = create_optimizer(case.name, params, backend="triton", **case.options)
    (group,) = optimizer.param_groups
    if "betas" in group:
        group["betas"] = (0.5, 0.25, 0.125)[: len(group["betas"])]
    if group.get("weight_decay_gamma", 1.0) != 1.0:
        group["weight_decay_gamma"] = 0.5
    for t, rate in enumerate(RATES):
        if "lr" not in case.options:
            group["lr"] = rate
        if case.scale:
            optimizer.grad_scale, optimizer.found_inf = torch.tensor(case.scale), torch.tensor([float(t == 1)])
        for p in params:
            p.grad = gradient(p, case, t)
        optimizer.step()
        if optimizer.grad_norm is not None:
            yield f"step {t}, the norm of all gradients", optimizer.grad_norm.clone()
        for i, p in enumerate(params):
            for key, value in {"itself": p.detach(), **optimizer.state[p]}.items():
                yield f"step {t}, parameter {i}, {key}", value.clone()


def executed() -> None:
    from . import plugin  # noqa: F401  from here on kernels are compiled, and run on its device


def interpreted() -> None:
    os.environ["TRITON_INTERPRET"] = "1"
    from triton.runtime import interpreter

    from tests.engine.triton.rounding import as_on_devices

    interpreter._convert_float = as_on_devices(interpreter._convert_float)


def main(how: str, file: str, *titles: str) -> None:
    {"executed": executed, "interpreted": interpreted}[how]()
    chosen = {title: case for title, case in cases() if not titles or title in titles}
    torch.save({title: dict(stepped(case)) for title, case in chosen.items()}, file)


if __name__ == "__main__":
    np.seterr(all="ignore")  # infinities and no numbers are what it is about
    main(*sys.argv[1:])
