"""A rule: one point of the space transform x moments x acceleration x decay x state, and the numbers of its steps."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .arithmetic import Coefficient, Coefficients
from .encodings import FLOAT32, LEVELS, REMAINDER, Encoding, phase
from .moments import MOMENTS, Moments
from .movement import MOVEMENTS, Movement
from .transforms import TRANSFORMS

ACCELERATIONS = ("none", "win", "win2")
DECAYS = ("decoupled", "proximal", "l2", "in_update")
STATES = tuple(LEVELS)

ROUNDING = "rounding"
"""What `4096 (x - z)` is called, in place of the distance `x_gap`: nobody is to take one for the other."""


@dataclass(frozen=True)
class Rule:
    """The choices that make an optimizer; all numbers (rates, betas, decay) come with each step.

    Args:
        transform: "none", "agr" or "adal" (docs/math.md, section 1).
        moments: "adam", "nadam", "adan", "momentum" or "nesterov" (section 2); "base" is another optimizer's step (3b).
        acceleration: "none", "win" or "win2" (section 3).
        decay: "decoupled", "proximal", "l2" or "in_update"; "decoupled" not under Win and Win2.
        trust_ratio: scale the direction by `||w|| / ||r||` per parameter (LAMB).
        state: "float32", "compact" or "8bit" (docs/state.md).
        remainder: keep what rounding takes from a half-precision parameter, in float16: without acceleration beside
            the moments, under Win and Win2 in place of `x_gap`.

    Raises:
        ValueError: a choice that does not exist, or decoupled decay under Win or Win2.
    """

    transform: str = "none"
    moments: str = "adam"
    acceleration: str = "none"
    decay: str = "decoupled"
    trust_ratio: bool = False
    state: str = "float32"
    remainder: bool = False

    def __post_init__(self) -> None:
        for name, known in (
            ("transform", TRANSFORMS),
            ("moments", tuple(MOMENTS)),
            ("acceleration", ACCELERATIONS),
            ("decay", DECAYS),
            ("state", STATES),
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
        return self.moments_kind.state_names + self.gaps

    @functools.cached_property
    def gaps(self) -> tuple[str, ...]:
        """The distances among them."""
        if not self.remainder:
            return self.movement.state_names
        return (ROUNDING, *self.movement.state_names[1:])

    def encoding(self, name: str) -> Encoding:
        """How a tensor of the state is stored (of a float64 parameter: as it is)."""
        if name == ROUNDING:
            return REMAINDER
        return LEVELS[self.state].get(name, FLOAT32)

    @functools.cached_property
    def encodings(self) -> dict[str, Encoding]:
        """How each tensor of the state is stored, in order."""
        return {name: self.encoding(name) for name in self.state_names}

    @functools.cached_property
    def kept(self) -> dict[str, Encoding]:
        """All tensors that are kept, scales behind their codes, and what each is a part of."""
        return {
            kept: encoding
            for name, encoding in self.encodings.items()
            for kept in ((name, scale_of(name)) if encoding.is_blocked else (name,))
        }

    @functools.cached_property
    def is_blocked(self) -> bool:
        """Whether anything is stored in blocks."""
        return any(encoding.is_blocked for encoding in self.encodings.values())

    @functools.cached_property
    def is_coded(self) -> bool:
        """Whether anything is stored otherwise than in the type of arithmetic."""
        return any(encoding is not FLOAT32 for encoding in self.encodings.values())

    @functools.cached_property
    def dithers(self) -> bool:
        """Whether any encoding asks for the dither."""
        return any(encoding.dithers for encoding in self.encodings.values())

    def bytes_per_param(
        self, param: int = 4, arithmetic: int = 4, weight_decay: bool = True, transform: bool = True
    ) -> float:
        """Bytes that a step must read and write per element of a parameter.

        Args:
            param, arithmetic: bytes of an element of the parameter (and gradient), and of the type of arithmetic.
            weight_decay: whether there is any, so that l2 and in_update decay read the parameter.
            transform: whether the transform is on, so that the gradient's sum is taken first.
        """
        kept = {name: self._bytes(name, arithmetic) for name in self.state_names}
        moments = sum(kept[name] for name in self.moments_kind.state_names)
        l2 = self.decay == "l2" and weight_decay
        moved = 3 * param + 2 * sum(kept.values())
        if self.trust_ratio:  # a second pass: the moments again, and in the first what the norm is taken of, z or z - d
            moved += moments + param + (kept[self.gaps[0]] if self.gaps else 0)
            moved += param if self.moments_kind.ahead else 0
        if self.transform != "none" and transform:
            moved += 2 * param if l2 else param
        return moved

    def state_bytes_per_param(self, arithmetic: int = 4) -> float:
        """Bytes of state kept per element of a parameter."""
        return sum(self._bytes(name, arithmetic) for name in self.state_names)

    def _bytes(self, name: str, arithmetic: int) -> float:
        encoding = self.encoding(name)
        return arithmetic if encoding is FLOAT32 else encoding.bytes


def scale_of(name: str) -> str:
    """What the scales of a tensor are called."""
    return f"{name}_scale"


def coefficients(rule: Rule, hyper: Mapping[str, Any], t: int, grad: Coefficient = 1.0) -> Coefficients:
    """Every number of step `t`, computed on the host in float64.

    Args:
        hyper: `lr`, `weight_decay`, and what the rule's moments and movement ask (`betas`, `eps`, `momentum_decay`,
            `momentum`, `dampening`, `reckless_steps`); optionally `weight_decay_gamma` (1) and `inverse_sqrt_lr`
            (False).
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
        **({"phi": phase(t)} if rule.dithers else {}),
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
