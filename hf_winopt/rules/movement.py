"""docs/math.md, section 3: how the parameter `z` moves along the direction `u`, plain, with Win and with Win2.

Win's lines are weighted means of their terms. They are written as such, by interpolation, which is the same number and
has a merit: where the learning rate is 0 and the sequences agree, they stay exactly as they are (a warm-up starts so,
and so does `torch.distributed.checkpoint` when it makes an optimizer's state).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from .arithmetic import Coefficients, add_scaled, scaled, toward
from .moments import State


class Movement(NamedTuple):
    """One way to move: the names of its sequences, its coefficients on the host, and the step itself."""

    state_names: tuple[str, ...]
    coefficients: Callable[[Mapping[str, Any], float, float], dict[str, float]]
    move: Callable[[Coefficients, Tensor, Tensor, State, State], tuple[Tensor, State]]


def _conservative(c: Coefficients, x: Tensor, u: Tensor, out: Tensor | None) -> Tensor:
    """`(x - eta u) / (1 + eta lam)`: Win's `x`, and the whole step of a proximal rule."""
    return scaled(add_scaled(x, u, c["minus_lr"], out), c["shrink"], out)


# without acceleration ----------------------------------------------------------------------------------------------


def decoupled_coefficients(hyper: Mapping[str, Any], lr: float, lam: float) -> dict[str, float]:
    return {"minus_lr": -lr, "keep": 1 - lr * lam}


def decoupled_move(c: Coefficients, z: Tensor, u: Tensor, state: State, out: State) -> tuple[Tensor, State]:
    into = out.get("z")
    return add_scaled(scaled(z, c["keep"], into), u, c["minus_lr"], into), {}  # z <- (1 - eta lam) z - eta u


def proximal_coefficients(hyper: Mapping[str, Any], lr: float, lam: float) -> dict[str, float]:
    return {"minus_lr": -lr, "shrink": 1 / (1 + lr * lam)}


def proximal_move(c: Coefficients, z: Tensor, u: Tensor, state: State, out: State) -> tuple[Tensor, State]:
    return _conservative(c, z, u, out.get("z")), {}  # z <- (z - eta u) / (1 + eta lam)


# Win ---------------------------------------------------------------------------------------------------------------


def win_coefficients(hyper: Mapping[str, Any], lr: float, lam: float) -> dict[str, float]:
    r1 = hyper["reckless_steps"][0]
    weight = r1 / (1 + r1)
    # c = 1 / (1 + r1 + r1 eta lam) = (1 / (1 + r1)) * win_shrink
    return {**proximal_coefficients(hyper, lr, lam), "win": weight, "win_shrink": 1 / (1 + weight * lr * lam)}


def _reckless(c: Coefficients, z: Tensor, beyond: Tensor, out: Tensor | None) -> Tensor:
    """`c (z - r1 eta u + r1 x)`: the mean of `z` and of `beyond = x - eta u`, the point one more step beyond `x`."""
    return scaled(toward(z, beyond, c["win"], out), c["win_shrink"], out)


def win_move(c: Coefficients, z: Tensor, u: Tensor, state: State, out: State) -> tuple[Tensor, State]:
    x = _conservative(c, state["x"], u, out.get("x"))
    return _reckless(c, z, add_scaled(x, u, c["minus_lr"]), out.get("z")), {"x": x}


# Win2 --------------------------------------------------------------------------------------------------------------


def win2_coefficients(hyper: Mapping[str, Any], lr: float, lam: float) -> dict[str, float]:
    r1, r2 = hyper["reckless_steps"]
    whole = 1 + r2 + r2 / r1
    return {
        **win_coefficients(hyper, lr, lam),
        "y_share": 1 / (1 + r1),  # of the two points that z is drawn to: (r2/r1) / (r2 + r2/r1)
        "win2": 1 - 1 / whole,
        "win2_shrink": 1 / (1 + (r2 / whole) * lr * lam),
    }


def win2_move(c: Coefficients, z: Tensor, u: Tensor, state: State, out: State) -> tuple[Tensor, State]:
    into = out.get("z")
    x = _conservative(c, state["x"], u, out.get("x"))
    beyond = add_scaled(x, u, c["minus_lr"])
    y = _reckless(c, state["y"], beyond, out.get("y"))
    z = scaled(toward(z, toward(beyond, y, c["y_share"], beyond), c["win2"], into), c["win2_shrink"], into)
    return z, {"x": x, "y": y}


MOVEMENTS = {
    "decoupled": Movement((), decoupled_coefficients, decoupled_move),
    "proximal": Movement((), proximal_coefficients, proximal_move),
    "win": Movement(("x",), win_coefficients, win_move),
    "win2": Movement(("x", "y"), win2_coefficients, win2_move),
}
