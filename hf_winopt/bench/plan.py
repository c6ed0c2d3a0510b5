"""What is to be measured, refused where it cannot be before anything is allocated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import COMPOSED, OPTIMIZERS, create_optimizer
from ..engine import BACKENDS, choose, resolve
from ..optim.registry import suggestion
from ..rules import STATES
from .shapes import Shape, shapes_of

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""The types that parameters can have here."""


@dataclass(frozen=True)
class Plan:
    """A measurement.

    Args:
        names: optimizers, of `hf_winopt.OPTIMIZERS`.
        model: what the shapes are called.
        shapes: of all parameters.
        dtype: of parameters and gradients.
        backends: of `hf_winopt.engine.BACKENDS`.
        device: where.
        rounds: how often each optimizer is timed.
        states: levels of state, of `hf_winopt.rules.STATES`.
    """

    names: tuple[str, ...]
    model: str
    shapes: tuple[Shape, ...]
    dtype: torch.dtype
    backends: tuple[str, ...]
    device: torch.device
    rounds: int
    states: tuple[str, ...] = ("float32",)

    @property
    def elements(self) -> int:
        """Elements of all parameters."""
        return sum(map(math.prod, self.shapes))

    @property
    def dtype_name(self) -> str:
        """The type as torch prints it, without "torch."."""
        return str(self.dtype).removeprefix("torch.")


def make_plan(
    names: Sequence[str] = (),
    shapes: str = "bert-base",
    dtype: str = "float32",
    backends: Sequence[str] = ("auto",),
    device: str | None = None,
    rounds: int = 9,
    states: Sequence[str] = ("float32",),
) -> Plan:
    """Check what is asked for.

    Args:
        names: optimizers by name (default: all).
        shapes: as `shapes_of` takes them (default: bert-base).
        dtype: of parameters and gradients, one of `DTYPES` (default: float32).
        backends: "auto" is what `default_backends` says for the device (default: auto).
        device: as torch names it (default: the accelerator, else the CPU).
        rounds: how often each optimizer is timed (default: 9).
        states: levels of state (default: float32).

    Raises:
        ValueError: an unknown name, shape, type, backend, device or level, or no rounds.
    """
    chosen = _device(device)
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be {' or '.join(DTYPES)}; got {dtype!r}")
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1; got {rounds}")
    if unknown := [state for state in states if state not in STATES]:
        raise ValueError(f"state must be {' or '.join(STATES)}; got {unknown[0]!r}")
    engines = dict.fromkeys(e for backend in backends for e in _engines(backend, chosen))
    for name in names:
        if name in COMPOSED:
            raise ValueError(f"{name} is not measured here: its step is another's (benchmarks/around_cost.py)")
        create_optimizer(name, [torch.zeros(1, device="cpu")])  # knows what to say of a wrong name
    unique = tuple(dict.fromkeys(names or OPTIMIZERS))
    levels = tuple(dict.fromkeys(states))
    return Plan(unique, _public(shapes), shapes_of(shapes), DTYPES[dtype], tuple(engines), chosen, rounds, levels)


def default_backends(device: torch.device) -> tuple[str, ...]:
    """The backends worth measuring on a device."""
    if device.type == "cpu":
        return ("eager", "compile")
    return (resolve("auto", device),)


def _engines(backend: str, device: torch.device) -> tuple[str, ...]:
    if backend == "auto":
        return default_backends(device)
    if backend not in BACKENDS:
        known = ("auto", *BACKENDS)
        raise ValueError(f"unknown backend {backend!r}{suggestion(backend, known)} Known backends: {', '.join(known)}")
    if backend == "triton":  # elsewhere it is stepped by another engine, whose times would bear its name
        sample = torch.zeros(1, device=device)
        if reason := choose(backend, sample, sample)[1]:
            raise ValueError(f"backend 'triton' cannot be measured here: {reason}")
    return (backend,)


def _device(name: str | None) -> torch.device:
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if name is None:
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"unknown device {name!r}: {str(error).splitlines()[0]}") from None
    here = ["cpu"]
    if accelerator is not None:
        here += [f"{accelerator.type}:{index}" for index in range(torch.accelerator.device_count())]
    kinds = {place.partition(":")[0] for place in here}
    if str(device) not in here and str(device) not in kinds:
        raise ValueError(f"there is no device {name!r} here; there is {', '.join(here)}")
    return device


def _public(shapes: str) -> str:
    """A name as it is; of a local folder only the last part."""
    return Path(shapes).resolve().name if Path(shapes).exists() else shapes
