"""Which engine steps which tensors."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor

from ..rules import Rule
from .work import Work

BACKENDS = {"eager": "eager", "compile": "compiled", "triton": "eager"}
"""Backend name -> module of this package with `step(rule, works)`, imported at its first use.

The Triton engine is not stepped by works but by a `triton.plan.Plan`; what it cannot take, the eager engine steps.
"""

ACCELERATORS = ("cuda", "xpu")  # ROCm's devices are called cuda too

Step = Callable[[Rule, list[Work]], None]


@functools.cache
def _triton_is_here() -> bool:
    return importlib.util.find_spec("triton") is not None


def resolve(backend: str, device: torch.device) -> str:
    """The backend that steps tensors on `device`: what was asked for, or for "auto" the one that is best there."""
    if backend != "auto":
        return backend
    return "triton" if device.type in ACCELERATORS and _triton_is_here() else "eager"


def reason_against_triton(p: Tensor, g: Tensor) -> str | None:
    """Why the Triton engine cannot step a parameter with such a gradient; None where it can."""
    if not _triton_is_here():
        return "triton is not installed (pip install triton)"
    if p.device.type not in ACCELERATORS and os.environ.get("TRITON_INTERPRET") != "1":
        return f"Triton needs a GPU, and a parameter is on {p.device}"
    if torch.empty_like(p, device="meta").stride() != p.stride():
        return f"a parameter of shape {tuple(p.shape)} has gaps or overlaps in memory (strides {p.stride()})"
    if g.stride() != p.stride():
        return (
            f"the gradient of a parameter of shape {tuple(p.shape)} is laid out otherwise than the parameter "
            f"(strides {g.stride()} and {p.stride()})"
        )
    return None


def step(backend: str, rule: Rule, works: list[Work]) -> None:
    """Step all `works` by `rule`, each device's by the engine that `backend` means there.

    Raises:
        KeyError: no such backend.
    """
    by_engine: defaultdict[str, list[Work]] = defaultdict(list)
    for work in works:
        by_engine[BACKENDS[resolve(backend, work.z.device)]].append(work)
    for name, mine in by_engine.items():
        importlib.import_module(f".{name}", __package__).step(rule, mine)
