"""docs/math.md, section 2: the moments, and the direction `u` that they give.

A kind of moments is four things: the names of its state, its coefficients at step `t` (float64, on the host), how the
state takes in a transformed gradient, and the direction. `h` is that gradient, `s` what feeds Adam's second moment and
nesterov's look ahead; Adan takes `h` in every line, and NAdam's look ahead takes it too. `out` holds the tensors that
take the new state, by name, and is empty where the new state is to be new tensors.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .arithmetic import Coefficients, add_scaled, scaled, stored, toward, toward_square

State = dict[str, Tensor]


class Moments(NamedTuple):
    """One kind of moments; see the module.

    `ahead` says which gradient of this step the direction takes besides the moments, "h" or "s"; "" where none. `reach`
    says how many times the largest `|h|` so far what is squared can be; 0 where nothing is.
    """

    state_names: tuple[str, ...]
    coefficients: Callable[[Mapping[str, Any], int], dict[str, float]]
    advance: Callable[[Coefficients, Tensor, Tensor, State, State], State]
    direction: Callable[[Coefficients, Tensor, State], Tensor]
    reach: Callable[[Mapping[str, Any]], float]
    ahead: str = ""


def _quotient(numerator: Tensor, second_moment: Tensor, c: Coefficients) -> Tensor:
    """`(numerator / bc1) / (sqrt(second_moment / bc2) + eps)`, both sides multiplied by bc1 (`bc = 1 - beta^t`)."""
    denominator = second_moment.sqrt().mul_(c["root"]).add_(c["floor"])
    return torch.div(numerator, denominator, out=denominator)


# Adam, and LAMB and AdaL on it -------------------------------------------------------------------------------------


def adam_coefficients(hyper: Mapping[str, Any], t: int) -> dict[str, float]:
    beta1, beta2 = hyper["betas"]
    bc1, bc2 = 1 - beta1**t, 1 - beta2**t
    return {"m": 1 - beta1, "v": 1 - beta2, "root": bc1 / math.sqrt(bc2), "floor": hyper["eps"] * bc1}


def adam_advance(c: Coefficients, h: Tensor, s: Tensor, state: State, out: State) -> State:
    return {
        "exp_avg": toward(state["exp_avg"], h, c["m"], out.get("exp_avg")),  # m <- b1 m + (1-b1) h
        "exp_avg_sq": toward_square(state["exp_avg_sq"], s, c["v"], out.get("exp_avg_sq")),  # v <- b2 v + (1-b2) s^2
    }


def adam_direction(c: Coefficients, ahead: Tensor, state: State) -> Tensor:
    return _quotient(state["exp_avg"], state["exp_avg_sq"], c)


def adam_reach(hyper: Mapping[str, Any]) -> float:
    return 1.0  # s


# NAdam: Adam's moments, and Nesterov's look ahead at the next step's --------------------------------------------------

DECAY_OF_NADAM = 0.96
"""Dozat's constant: `mu_t = b1 (1 - 0.5 * 0.96^(t momentum_decay))`."""

LONG_OF_NADAM = 1024
"""After so many steps `mu_1 ... mu_t` is too small to change `1 - mu_1 ... mu_t`, or `mu_t` has become `b1`."""


def _mu(beta1: float, momentum_decay: float, t: int) -> float:
    return beta1 * (1 - 0.5 * DECAY_OF_NADAM ** (t * momentum_decay))


@functools.lru_cache(maxsize=64)  # all parameters of a group ask for the same
def _product_of_mu(beta1: float, momentum_decay: float, t: int) -> float:
    """`M_t = mu_1 ... mu_t`, from the step alone, so that nothing is kept of it."""
    product = 1.0
    for k in range(1, min(t, LONG_OF_NADAM) + 1):
        product *= _mu(beta1, momentum_decay, k)
        if product < 2.0**-60:
            break  # 1 - M is 1 from here on
    return product * beta1 ** max(t - LONG_OF_NADAM, 0)


def nadam_coefficients(hyper: Mapping[str, Any], t: int) -> dict[str, float]:
    beta1, beta2, decay = hyper["betas"][0], hyper["betas"][1], hyper["momentum_decay"]
    product = _product_of_mu(beta1, decay, t)
    next_mu = _mu(beta1, decay, t + 1)
    of_m, of_h = next_mu / (1 - product * next_mu), (1 - _mu(beta1, decay, t)) / (1 - product)
    return {
        "m": 1 - beta1,
        "v": 1 - beta2,
        "m_in_u": of_m / of_h,
        "root": 1 / (of_h * math.sqrt(1 - beta2**t)),
        "floor": hyper["eps"] / of_h,
    }


def nadam_direction(c: Coefficients, ahead: Tensor, state: State) -> Tensor:
    """Both sides of the quotient are divided by what `h` is multiplied by, which is never 0."""
    return _quotient(add_scaled(ahead, state["exp_avg"], c["m_in_u"]), state["exp_avg_sq"], c)


# Adan --------------------------------------------------------------------------------------------------------------


def adan_coefficients(hyper: Mapping[str, Any], t: int) -> dict[str, float]:
    beta1, beta2, beta3 = hyper["betas"]
    bc1, bc2, bc3 = 1 - beta1**t, 1 - beta2**t, 1 - beta3**t
    return {
        "m": 1 - beta1,
        "d": 1 - beta2,
        "n": 1 - beta3,
        "difference": 0.0 if t == 1 else 1.0,  # at the first step h_prev = h
        "ahead": beta2,
        "d_in_u": beta2 * bc1 / bc2,
        "root": bc1 / math.sqrt(bc3),
        "floor": hyper["eps"] * bc1,
    }


def adan_advance(c: Coefficients, h: Tensor, s: Tensor, state: State, out: State) -> State:
    d_t = scaled(h - state["prev_grad"], c["difference"])
    n_root = add_scaled(h, d_t, c["ahead"])
    return {
        "exp_avg": toward(state["exp_avg"], h, c["m"], out.get("exp_avg")),  # m <- b1 m + (1-b1) h
        "exp_avg_diff": toward(state["exp_avg_diff"], d_t, c["d"], out.get("exp_avg_diff")),  # d <- b2 d + (1-b2) d_t
        "exp_avg_sq": toward_square(
            state["exp_avg_sq"], n_root, c["n"], out.get("exp_avg_sq")
        ),  # n <- b3 n + (1-b3) (h + b2 d_t)^2
        "prev_grad": stored(h, out.get("prev_grad")),  # h_prev <- h
    }


def adan_direction(c: Coefficients, ahead: Tensor, state: State) -> Tensor:
    return _quotient(add_scaled(state["exp_avg"], state["exp_avg_diff"], c["d_in_u"]), state["exp_avg_sq"], c)


def adan_reach(hyper: Mapping[str, Any]) -> float:
    return 1.0 + 2.0 * hyper["betas"][1]  # h + b2 (h - h_prev)


# Momentum (SGD) ----------------------------------------------------------------------------------------------------


def momentum_coefficients(hyper: Mapping[str, Any], t: int) -> dict[str, float]:
    return {"mu": float(hyper["momentum"]), "fresh": 1.0 if t == 1 else 1.0 - hyper["dampening"]}


def momentum_advance(c: Coefficients, h: Tensor, s: Tensor, state: State, out: State) -> State:
    into = out.get("momentum_buffer")
    return {"momentum_buffer": add_scaled(scaled(state["momentum_buffer"], c["mu"], into), h, c["fresh"], into)}


def momentum_direction(c: Coefficients, ahead: Tensor, state: State) -> Tensor:
    return state["momentum_buffer"]


def nesterov_direction(c: Coefficients, ahead: Tensor, state: State) -> Tensor:
    return add_scaled(ahead, state["momentum_buffer"], c["mu"])


def momentum_reach(hyper: Mapping[str, Any]) -> float:
    return 0.0


# none: another optimizer takes the step (section 3b) -----------------------------------------------------------------


def no_coefficients(hyper: Mapping[str, Any], t: int) -> dict[str, float]:
    return {}


def no_advance(c: Coefficients, h: Tensor, s: Tensor, state: State, out: State) -> State:
    return {}


def no_direction(c: Coefficients, ahead: Tensor, state: State) -> Tensor:
    raise NotImplementedError("the direction is another optimizer's")


_ADAM = ("exp_avg", "exp_avg_sq")
_ADAN = ("exp_avg", "exp_avg_diff", "exp_avg_sq", "prev_grad")
_SGD = ("momentum_buffer",)

MOMENTS = {
    "adam": Moments(_ADAM, adam_coefficients, adam_advance, adam_direction, adam_reach),
    "nadam": Moments(_ADAM, nadam_coefficients, adam_advance, nadam_direction, adam_reach, "h"),
    "adan": Moments(_ADAN, adan_coefficients, adan_advance, adan_direction, adan_reach),
    "momentum": Moments(_SGD, momentum_coefficients, momentum_advance, momentum_direction, momentum_reach),
    "nesterov": Moments(_SGD, momentum_coefficients, momentum_advance, nesterov_direction, momentum_reach, "s"),
    "base": Moments((), no_coefficients, no_advance, no_direction, momentum_reach),
}


def trust_ratio(w_norm: Tensor, r_norm: Tensor) -> Tensor:
    """LAMB: `||w|| / ||r||`, 1 where either norm is 0 (0-dim tensors)."""
    return torch.where((w_norm == 0) | (r_norm == 0), torch.ones_like(w_norm), w_norm / r_norm)
