"""Which engine steps which tensors."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import shutil
import sysconfig
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

from ..rules import Rule
from . import staged
from .work import Work

BACKENDS = ("eager", "compile", "triton")

_MODULES = {"eager": "eager", "compile": "compiled"}
"""Engine -> module of this package with `step(rule, works)`, imported at its first use.

The Triton engine is not stepped by works but by a `triton.plan.Plan`.
"""

ACCELERATORS = ("cuda", "xpu")  # ROCm's devices are called cuda too

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
"""Types of parameters and gradients that every engine steps."""


@functools.cache
def triton_lacks() -> str | None:
    """What Triton needs on this machine and does not find; None where it can run."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed (pip install triton)"
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "Triton needs a C compiler, and there is none (install gcc, or name one in CC)"
    scheme = sysconfig.get_default_scheme()
    headers = sysconfig.get_path("include", "posix_prefix" if scheme == "posix_local" else scheme)  # where Triton looks
    if not os.path.exists(os.path.join(headers, "Python.h")):
        return f"Triton needs the headers of Python, and there is no Python.h in {headers} (install python3-dev)"
    return None


def resolve(backend: str, device: torch.device) -> str:
    """The engine for tensors on `device`: what was asked for, or for "auto" the one that is best there."""
    if backend != "auto":
        return backend
    return "triton" if device.type in ACCELERATORS and triton_lacks() is None else "eager"


def choose(backend: str, z: Tensor, g: Tensor, without_address: str | None = None) -> tuple[str, str | None]:
    """The engine that steps a parameter, or the shard of one; and if it is not the one that was to, why.

    Args:
        backend: what the optimizer was told.
        z, g: the parameter and its gradient (or itself, where it has none yet).
        without_address: why the address of one of its tensors says nothing; None where all do.
    """
    engine = resolve(backend, z.device)
    if engine == "eager":
        misses_triton = backend == "auto" and z.device.type in ACCELERATORS
        return engine, triton_lacks() if misses_triton else None
    against = without_address or (_against_triton(z, g) if engine == "triton" else None)
    return (engine if against is None else "eager"), against


def _walk(tensor: Tensor) -> list[int]:
    """The order in which a tensor's elements lie; the stride of a dimension of one element says nothing about it."""
    return [stride for stride, size in zip(tensor.stride(), tensor.shape) if size > 1]


def has_gaps(p: Tensor) -> bool:
    """Whether a tensor has gaps or overlaps in memory."""
    return _walk(torch.empty_like(p, device="meta")) != _walk(p)


def _against_triton(p: Tensor, g: Tensor) -> str | None:
    if p.device.type not in ACCELERATORS and os.environ.get("TRITON_INTERPRET") != "1":
        return f"Triton needs a GPU, and a parameter is on {p.device}"
    if lack := triton_lacks():
        return lack
    if g.dtype not in DTYPES:
        return f"a gradient is of {g.dtype}"
    if has_gaps(p):
        return f"a parameter of shape {tuple(p.shape)} has gaps or overlaps in memory (strides {p.stride()})"
    if _walk(g) != _walk(p):
        return (
            f"the gradient of a parameter of shape {tuple(p.shape)} is laid out otherwise than the parameter "
            f"(strides {g.stride()} and {p.stride()})"
        )
    return None


def step(works: Mapping[Rule, list[Work]]) -> None:
    """Step the works of each rule, each by its engine.

    Those that need sums over shards, which are elsewhere too, go together and first, whatever their engine.
    """
    in_stages: defaultdict[Rule, list[Work]] = defaultdict(list)
    by_engine: defaultdict[tuple[str, Rule], list[Work]] = defaultdict(list)
    for rule, mine in works.items():
        for work in mine:
            if work.z.is_meta:  # without values there is nothing to step
                continue
            if staged.takes(rule, work):
                in_stages[rule].append(work)
            else:
                by_engine[work.engine, rule].append(work)
    if in_stages:
        staged.step(in_stages)
    for (name, rule), mine in by_engine.items():
        importlib.import_module(f".{_MODULES[name]}", __package__).step(rule, mine)
