"""A rule: one point of the space transform x moments x acceleration x decay, and the step that the four compose.

A step walks the sections of docs/math.md in order: `gradient` (0), the transform (1), the moments and the direction
(2), `move` (3). Everything is a pure function of tensors; engines decide over which pieces of which tensors it runs.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .arithmetic import Coefficient, Coefficients, add_scaled, is_known, scaled
from .moments import MOMENTS, Moments, State
from .movement import MOVEMENTS, Movement
from .transforms import OFF, TRANSFORMS, transformed

ACCELERATIONS = ("none", "win", "win2")
DECAYS = ("decoupled", "proximal", "l2", "in_update")
NEW: State = {}
"""No destination: results are new tensors."""


@dataclass(frozen=True)
class Rule:
    """The choices that make an optimizer; all numbers (rates, betas, decay) come with each step.

    Args:
        transform: "none", "agr" or "adal" (docs/math.md, section 1).
        moments: "adam", "adan", "momentum" or "nesterov" (section 2).
        acceleration: "none", "win" or "win2" (section 3).
        decay: "decoupled", "proximal", "l2" or "in_update"; "decoupled" not under Win and Win2.
        trust_ratio: scale the direction by `||w|| / ||r||` per parameter (LAMB).

    Raises:
        ValueError: a choice that does not exist, or decoupled decay under Win or Win2.
    """

    transform: str = "none"
    moments: str = "adam"
    acceleration: str = "none"
    decay: str = "decoupled"
    trust_ratio: bool = False

    def __post_init__(self) -> None:
        for name, known in (
            ("transform", TRANSFORMS),
            ("moments", tuple(MOMENTS)),
            ("acceleration", ACCELERATIONS),
            ("decay", DECAYS),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}; got {getattr(self, name)!r}")
        if self.acceleration != "none" and self.decay == "decoupled":
            raise ValueError(
                f"decay='decoupled' does not go with acceleration={self.acceleration!r}: the proximal form is the "
                "method. Use decay='proximal' (or 'l2', 'in_update')"
            )

    @property
    def moments_kind(self) -> Moments:
        return MOMENTS[self.moments]

    @property
    def movement_name(self) -> str:
        if self.acceleration != "none":
            return self.acceleration
        return "decoupled" if self.decay == "decoupled" else "proximal"

    @property
    def movement(self) -> Movement:
        return MOVEMENTS[self.movement_name]

    @property
    def takes_sums(self) -> bool:
        """Whether numbers of a whole parameter are needed: `sum|g|`, or LAMB's two norms."""
        return self.trust_ratio or self.transform != "none"

    @functools.cached_property
    def state_names(self) -> tuple[str, ...]:
        """The tensors of the parameter's shape that the rule keeps, in order."""
        return self.moments_kind.state_names + self.movement.state_names

    @property
    def conservative(self) -> str:
        """The sequence whose norm the trust ratio takes: "x" under Win and Win2, else "z"."""
        return "z" if self.acceleration == "none" else "x"

    def bytes_per_param(self, param: int = 4, state: int = 4, weight_decay: bool = True, transform: bool = True) -> int:
        """Bytes that a step must read and write per element of a parameter.

        Args:
            param, state: bytes of an element of the parameter (and gradient) and of its state.
            weight_decay: whether there is any, so that l2 and in_update decay read the parameter.
            transform: whether the transform is on, so that the gradient's sum is taken first.
        """
        move = 2 * param + 2 * state * len(self.movement.state_names)
        moments = len(self.moments_kind.state_names)
        advance = param + 2 * state * moments
        l2 = self.decay == "l2" and weight_decay
        reads_z = l2 or (self.decay == "in_update" and weight_decay)
        if self.trust_ratio:  # a second pass: the moments again, and in the first the tensor whose norm is taken
            advance += state * moments + (state if self.conservative == "x" else param)
            advance += param if reads_z and self.conservative == "x" else 0
            advance += param if self.moments == "nesterov" else 0
        if self.transform != "none" and transform:
            advance += 2 * param if l2 else param
        return advance + move

    def state_bytes_per_param(self, state: int = 4) -> int:
        """Bytes of state kept per element of a parameter."""
        return state * len(self.state_names)


def coefficients(rule: Rule, hyper: Mapping[str, Any], t: int, grad: Coefficient = 1.0) -> Coefficients:
    """Every number of step `t`, computed on the host in float64.

    Args:
        hyper: `lr`, `weight_decay`, and what the rule's moments and movement ask (`betas`, `eps`, `momentum`,
            `dampening`, `reckless_steps`); optionally `weight_decay_gamma` (1) and `inverse_sqrt_lr` (False).
        t: the step of the parameter, the first is 1.
        grad: what the gradient is multiplied by: sign, unscaling and clipping together; a tensor where the host does
            not know it.
    """
    lr = float(hyper["lr"])
    if hyper.get("inverse_sqrt_lr"):
        lr /= math.sqrt(t)
    lam = hyper["weight_decay"] * hyper.get("weight_decay_gamma", 1.0) ** (t - 1)
    in_movement = lam if rule.decay in ("decoupled", "proximal") else 0.0
    numbers = {
        **({rule.decay: lam} if rule.decay in ("l2", "in_update") else {}),
        **rule.moments_kind.coefficients(hyper, t),
        **rule.movement.coefficients(hyper, lr, in_movement),
    }
    return {"grad": grad, **{name: float(number) for name, number in numbers.items()}}  # an int is known, too


def largest_norm(rule: Rule, hyper: Mapping[str, Any], numel: int, largest: float) -> float:
    """The largest norm of a parameter's gradient whose square the second moment bears; infinite if it has none.

    Args:
        hyper: as `coefficients` takes them.
        numel: elements of the parameter: AdaL multiplies by the sum of as many, which is at most their root times the
            norm.
        largest: the largest number of the type of the state.
    """
    reach = rule.moments_kind.reach(hyper)
    if reach == 0:
        return math.inf
    bound = 0.999 * math.sqrt(largest) / reach  # less what sums are rounded by
    return math.sqrt(bound / math.sqrt(max(numel, 1))) if rule.transform == "adal" else bound


def gradient(c: Coefficients, z: Tensor, g: Tensor) -> Tensor:
    """Section 0: scale, sign, clipping and l2 decay; the gradient that `sum|g|` is taken of."""
    g = scaled(g, c["grad"])
    return _with_decay(c.get("l2", 0.0), g, z)


def _with_decay(lam: Coefficient, tensor: Tensor, z: Tensor) -> Tensor:
    return tensor if is_known(lam, 0.0) else add_scaled(tensor, z, lam)


def _direction(rule: Rule, c: Coefficients, z: Tensor, s: Tensor, moments: State) -> Tensor:
    r = rule.moments_kind.direction(c, s, moments)
    return _with_decay(c.get("in_update", 0.0), r, z)


def advance(rule: Rule, c: Coefficients, z: Tensor, g: Tensor, state: State, out: State = NEW) -> tuple[State, Tensor]:
    """Sections 0 to 2 but for the trust ratio: the new moments and the direction `r`; arguments as `apply`."""
    h, s = transformed(rule.transform, gradient(c, z, g), c.get("abs_sum", OFF))
    moments = rule.moments_kind.advance(c, h, s, state, out)
    return moments, _direction(rule, c, z, s, moments)


def direction_again(rule: Rule, c: Coefficients, z: Tensor, g: Tensor, state: State) -> Tensor:
    """The direction of `advance` from moments already advanced: recomputing it is cheaper than storing it (LAMB)."""
    s = g
    if rule.moments == "nesterov":
        _, s = transformed(rule.transform, gradient(c, z, g), c.get("abs_sum", OFF))
    return _direction(rule, c, z, s, state)


def move(rule: Rule, c: Coefficients, z: Tensor, r: Tensor, state: State, out: State = NEW) -> tuple[Tensor, State]:
    """Section 3, after the trust ratio where there is one: the new `z` and the new sequences; arguments as `apply`."""
    return rule.movement.move(c, z, scaled(r, c["ratio"]) if rule.trust_ratio else r, state, out)


def apply(rule: Rule, c: Coefficients, z: Tensor, g: Tensor, state: State, out: State = NEW) -> tuple[Tensor, State]:
    """One whole step over tensors of one shape and dtype.

    Args:
        c: `coefficients(...)`, and with a transform `abs_sum`, with a trust ratio
            `ratio`: the two numbers that belong to a whole parameter.
        z: the parameter; `g` its gradient as autograd left it; `state` the tensors of `rule.state_names`.
        out: the tensors that take the results, "z" and the names of the state; they may be the arguments themselves.
            What is not named there is not written to (Adan's new `prev_grad` is then the gradient itself).

    Returns:
        The new `z` and the new state. Nothing is modified but what `out` names.
    """
    moments, r = advance(rule, c, z, g, state, out)
    z, sequences = move(rule, c, z, r, state, out)
    return z, {**moments, **sequences}
