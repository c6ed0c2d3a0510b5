"""docs/math.md, section 3: how the parameter `z` moves along the direction `u`, plain, with Win and with Win2.

Win's sequences are kept as distances: the weights are the truth, and what is written into them between two steps stays
written. The lines of the distances are the paper's, less that of `x`. Where the learning rate is 0 and the sequences
agree, they stay exactly as they are (a warm-up starts so, and so does `torch.distributed.checkpoint` when it makes an
optimizer's state).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .arithmetic import Coefficients, add_scaled, scaled
from .moments import State


class Movement(NamedTuple):
    """One way to move: the names of its distances, its coefficients on the host, and the step itself.

    The step gives the new `x` and the new distances from it; `gaps`, those distances alone, from how far `x` has moved.
    Where nothing is accelerated, `x` is `z`, but for what rounding has taken from `z` where that is kept.
    """

    state_names: tuple[str, ...]
    coefficients: Callable[[Mapping[str, Any], float, float], dict[str, float]]
    move: Callable[[Coefficients, Tensor, Tensor, State, State], tuple[Tensor, State]]
    gaps: Callable[[Coefficients, Tensor, State, State], State]


def conservative(z: Tensor, state: State) -> Tensor:
    """The conservative sequence `x`, which `z` is ahead of; `z` itself where no distance is kept."""
    return z - state["x_gap"] if "x_gap" in state else z


def _conservative_step(c: Coefficients, x: Tensor, u: Tensor, out: Tensor | None) -> Tensor:
    """`(x - eta u) / (1 + eta lam)`: Win's `x`, and the whole step of a proximal rule."""
    return scaled(add_scaled(x, u, c["minus_lr"], out), c["shrink"], out)


# without acceleration ----------------------------------------------------------------------------------------------


def no_gaps(c: Coefficients, x_step: Tensor, state: State, out: State) -> State:
    return {}


def decoupled_coefficients(hyper: Mapping[str, Any], lr: float, lam: float) -> dict[str, float]:
    return {"minus_lr": -lr, "keep": 1 - lr * lam}


def decoupled_move(c: Coefficients, z: Tensor, u: Tensor, state: State, out: State) -> tuple[Tensor, State]:
    into, x = out.get("z"), conservative(z, state)
    return add_scaled(scaled(x, c["keep"], into), u, c["minus_lr"], into), {}  # z <- (1 - eta lam) z - eta u


def proximal_coefficients(hyper: Mapping[str, Any], lr: float, lam: float) -> dict[str, float]:
    return {"minus_lr": -lr, "shrink": 1 / (1 + lr * lam)}


def proximal_move(c: Coefficients, z: Tensor, u: Tensor, state: State, out: State) -> tuple[Tensor, State]:
    return _conservative_step(c, conservative(z, state), u, out.get("z")), {}  # z <- (z - eta u) / (1 + eta lam)


# Win ---------------------------------------------------------------------------------------------------------------


def win_coefficients(hyper: Mapping[str, Any], lr: float, lam: float) -> dict[str, float]:
    r1 = hyper["reckless_steps"][0]
    share = 1 / (1 + r1 + r1 * lr * lam)
    return {**proximal_coefficients(hyper, lr, lam), "win": share, "win_step": share * (r1 - 1)}


def _step_of_x(c: Coefficients, z: Tensor, u: Tensor, state: State) -> tuple[Tensor, Tensor]:
    """The new `x`, and by how much it has moved."""
    before = conservative(z, state)
    x = _conservative_step(c, before, u, None)
    return x, torch.sub(x, before, out=before)


def win_gaps(c: Coefficients, x_step: Tensor, state: State, out: State) -> State:
    into = out.get("x_gap")
    gap = add_scaled(torch.mul(state["x_gap"], c["win"], out=into), x_step, c["win_step"], into)
    return {"x_gap": gap}  # z - x <- c (z - x + (r1 - 1) step of x)


def win_move(c: Coefficients, z: Tensor, u: Tensor, state: State, out: State) -> tuple[Tensor, State]:
    x, x_step = _step_of_x(c, z, u, state)
    return x, win_gaps(c, x_step, state, out)


# Win2 --------------------------------------------------------------------------------------------------------------


def win2_coefficients(hyper: Mapping[str, Any], lr: float, lam: float) -> dict[str, float]:
    r1, r2 = hyper["reckless_steps"]
    share = 1 / (1 + r2 + r2 / r1 + r2 * lr * lam)
    return {
        **win_coefficients(hyper, lr, lam),
        "win2": share,
        "win2_step": share * (r2 - 1),
        "win2_y": share * (r2 / r1),
    }


def win2_gaps(c: Coefficients, x_step: Tensor, state: State, out: State) -> State:
    into, y_into = out.get("x_gap"), out.get("y_gap")
    # y - x <- c (y - x + (r1 - 1) step of x)
    y_gap = add_scaled(torch.mul(state["y_gap"], c["win"], out=y_into), x_step, c["win_step"], y_into)
    gap = add_scaled(torch.mul(state["x_gap"], c["win2"], out=into), x_step, c["win2_step"], into)
    gap = add_scaled(gap, y_gap, c["win2_y"], into)
    return {"x_gap": gap, "y_gap": y_gap}  # z - x <- c2 (z - x + (r2 - 1) step of x + (r2/r1) (y - x))


def win2_move(c: Coefficients, z: Tensor, u: Tensor, state: State, out: State) -> tuple[Tensor, State]:
    x, x_step = _step_of_x(c, z, u, state)
    return x, win2_gaps(c, x_step, state, out)


MOVEMENTS = {
    "decoupled": Movement((), decoupled_coefficients, decoupled_move, no_gaps),
    "proximal": Movement((), proximal_coefficients, proximal_move, no_gaps),
    "win": Movement(("x_gap",), win_coefficients, win_move, win_gaps),
    "win2": Movement(("x_gap", "y_gap"), win2_coefficients, win2_move, win2_gaps),
}
