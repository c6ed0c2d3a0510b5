"""docs/math.md, section 3b: Win around a step that another optimizer takes, at `x`, with the gradient taken at `z`.

That step turns `x` into `x'`, and overwrites it. What the distances then need of `x` waits where they are: Win's lines
are linear, so they are taken before as if `x'` were 0, and `x'` is added after. Nothing else is kept of a parameter.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from .arithmetic import Coefficients, add_scaled
from .moments import State
from .movement import conservative
from .rule import Rule
from .step import NEW, placed, read

RESPONSE = "response_"
"""What a distance gains of `x'`, by its name behind this, among the coefficients."""


@functools.lru_cache(maxsize=64)
def around_coefficients(rule: Rule, reckless_steps: tuple[float, float]) -> Coefficients:
    """Every number of a step around another's, computed on the host in float64; the same at every step."""
    c = rule.movement.coefficients({"reckless_steps": reckless_steps}, 0.0, 0.0)
    nothing = {name: torch.zeros((), dtype=torch.float64, device="cpu") for name in rule.movement.state_names}
    gained = rule.movement.gaps(dict(c), torch.ones((), dtype=torch.float64, device="cpu"), nothing, {})
    return {**c, **{RESPONSE + name: gain.item() for name, gain in gained.items()}}


def leave(rule: Rule, c: Coefficients, z: Tensor, state: State) -> tuple[Tensor, State]:
    """Before the base's step: `x`, and what waits for it, by the names of the distances.

    Args:
        c: `around_coefficients(...)`.
        z: the parameter, in the type of arithmetic; `state` the tensors of `rule.kept`.
    """
    values = read(rule, state)
    x = conservative(z, values)
    return x, rule.movement.gaps(c, -x, values, {})


def arrive(
    rule: Rule, c: Coefficients, x: Tensor, waiting: State, out: State = NEW, home: torch.dtype | None = None
) -> tuple[Tensor, State]:
    """After it: the new `z`, and the new distances as they are stored.

    Args:
        x: the parameter as the base has left it, `x'`.
        waiting: what `leave` gave.
        out, home: as `apply` takes them.
    """
    gaps = {name: add_scaled(value, x, c[RESPONSE + name]) for name, value in waiting.items()}
    return placed(rule, c, x, gaps, out, home or x.dtype)
