"""Numbers, and names of metrics, as a person writes them."""

from __future__ import annotations

import math


def number(value: float | None, digits: int = 4) -> str:
    """So many significant digits, and no fraction from 1000 on."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.0f}" if abs(value) >= 999.5 else f"{value:.{digits}g}"


def duration(seconds: float) -> str:
    """As a person says it: 42 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def signed(value: float) -> str:
    """So many digits, and a plus before what is greater than zero."""
    return f"{'+' * (value > 0)}{number(value, 3)}"


def readable(metric: str) -> str:
    """The name of one of Trainer's metrics: `eval_test_loss` is "test loss"."""
    return metric.removeprefix("eval_").replace("_", " ")
