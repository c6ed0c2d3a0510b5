"""What each option of an optimizer may be, and the words in which a bad one is refused."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..engine import BACKENDS
from ..rules import ACCELERATIONS, DECAYS, STATES

Check = Callable[[str, Any], None]

OF_TORCH = ("foreach", "fused", "capturable", "differentiable")
"""Options of torch's optimizers that come from generic code: taken where they change nothing, and then forgotten."""

LARGEST = torch.finfo(torch.float32).max
"""What lies beyond is no number for a step in float32."""


def plain(value: Any) -> Any:
    """A number of numpy as Python's own, in a tuple or list too; all else as it is."""
    if isinstance(value, np.generic):
        return value.item()
    return type(value)(map(plain, value)) if type(value) in (tuple, list) else value


def refuse(name: str, value: object, right: str) -> None:
    raise ValueError(f"{name} must be {right}; got {value!r}{_of_yaml(value)}")


def _of_yaml(value: object) -> str:
    """What to do with a text that was meant for a number."""
    try:
        number = float(value) if isinstance(value, str) else math.nan
    except ValueError:
        number = math.nan
    return "" if math.isnan(number) else f", a text (which YAML takes 1e-3 for; write 1.0e-3, or {number!r})"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST


def non_negative(name: str, value: Any) -> None:
    if not _is_number(value) or value < 0:
        refuse(name, value, "a finite number >= 0 (in float32)")


def learning_rate(name: str, value: Any) -> None:
    if isinstance(value, Tensor):
        if value.numel() != 1 or value.is_meta:
            refuse(name, value, "a number or a tensor of one element")
        value = value.item()
    non_negative(name, value)


def fraction(name: str, value: Any) -> None:
    if not _is_number(value) or not 0 <= value < 1:
        refuse(name, value, "a number in [0, 1)")


def kept_share(name: str, value: Any) -> None:
    if not _is_number(value) or not 0 < value <= 1:
        refuse(name, value, "a number in (0, 1]")


def count(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        refuse(name, value, "a whole number >= 0")


def optional_count(name: str, value: Any) -> None:
    if value is not None:
        count(name, value)


def _optional_flag(name: str, value: Any) -> None:
    if value is not None:
        flag(name, value)


def _never(name: str, value: Any) -> None:
    if value is not False:
        refuse(name, value, "False: a step is taken in place, so that no gradient can go back through it")


def flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        refuse(name, value, "True or False")


def _sequence(name: str, value: Any, length: int, right: str) -> list[Any]:
    if not isinstance(value, (tuple, list)) or len(value) != length:
        refuse(name, value, right)
    return list(value)


def betas(length: int) -> Check:
    """A check for `length` betas."""
    right = f"{length} numbers in [0, 1), (" + ", ".join(f"beta{i + 1}" for i in range(length)) + ")"

    def check(name: str, value: Any) -> None:
        if not all(_is_number(beta) and 0 <= beta < 1 for beta in _sequence(name, value, length, right)):
            refuse(name, value, right)

    return check


def reckless_steps(name: str, value: Any) -> None:
    right = "two finite numbers > 0 (in float32), (r1, r2)"
    if not all(_is_number(step) and step > 0 for step in _sequence(name, value, 2, right)):
        refuse(name, value, right)


def one_of(*known: str | None) -> Check:
    """A check for one of these names."""

    def check(name: str, value: Any) -> None:
        if not (value is None or isinstance(value, str)) or value not in known:
            refuse(name, value, "one of " + ", ".join(map(repr, known)))

    return check


CHECKS: dict[str, Check] = {
    "lr": learning_rate,
    "betas": betas(2),
    "eps": non_negative,
    "weight_decay": non_negative,
    "weight_decay_gamma": kept_share,
    "momentum": fraction,
    "dampening": fraction,
    "momentum_decay": non_negative,
    "nesterov": flag,
    "acceleration": one_of(*ACCELERATIONS),
    "reckless_steps": reckless_steps,
    "decay": one_of(None, *DECAYS),
    "agr": flag,
    "agr_steps": optional_count,
    "always_adapt": flag,
    "inverse_sqrt_lr": flag,
    "restart_every": count,
    "max_grad_norm": non_negative,
    "skip_nonfinite": flag,
    "maximize": flag,
    "state": one_of(*STATES),
    "keep_rounding": flag,
    "foreach": _optional_flag,
    "fused": _optional_flag,
    "capturable": flag,
    "differentiable": _never,
}
"""Option name -> check. A class whose option means something else (Adan's three betas) says so in its `checks`."""

check_backend = one_of("auto", *BACKENDS)


def check_options(group: Mapping[str, Any], own: Mapping[str, Check]) -> None:
    """Check every option that a parameter group holds.

    Raises:
        ValueError: names the option, its value and what would be right.
    """
    for name, check in {**CHECKS, **own}.items():
        if name in group:
            check(name, group[name])
