"""Which engine steps which tensors."""

from __future__ import annotations

import importlib
from collections import defaultdict
from collections.abc import Callable

import torch

from ..rules import Rule
from .work import Work

BACKENDS = {"eager": "eager", "compile": "compiled"}
"""Backend name -> module of this package with `step(rule, works)`, imported at its first use."""

Step = Callable[[Rule, list[Work]], None]


def resolve(backend: str, device: torch.device) -> str:
    """The backend that steps tensors on `device`: what was asked for, or for "auto" the one that is best there."""
    return "eager" if backend == "auto" else backend


def engine(backend: str) -> Step:
    """The `step` of a backend.

    Raises:
        KeyError: no such backend.
    """
    return importlib.import_module(f".{BACKENDS[backend]}", __package__).step


def step(backend: str, rule: Rule, works: list[Work]) -> None:
    """Step all `works` by `rule`, each device's by the engine that `backend` means there."""
    by_engine: defaultdict[str, list[Work]] = defaultdict(list)
    for work in works:
        by_engine[resolve(backend, work.z.device)].append(work)
    for name, mine in by_engine.items():
        engine(name)(rule, mine)
