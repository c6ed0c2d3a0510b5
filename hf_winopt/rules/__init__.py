"""The mathematics of every optimizer here, written once, as pure functions of tensors."""

from .arithmetic import Coefficient, Coefficients, is_known
from .moments import MOMENTS, State, trust_ratio
from .movement import MOVEMENTS
from .rule import (
    ACCELERATIONS,
    DECAYS,
    Rule,
    advance,
    apply,
    coefficients,
    direction_again,
    gradient,
    largest_norm,
    move,
)
from .transforms import OFF, TRANSFORMS, agr_ends, agr_suits

__all__ = [
    "ACCELERATIONS",
    "DECAYS",
    "MOMENTS",
    "MOVEMENTS",
    "OFF",
    "TRANSFORMS",
    "Coefficient",
    "Coefficients",
    "Rule",
    "State",
    "advance",
    "agr_ends",
    "agr_suits",
    "apply",
    "coefficients",
    "direction_again",
    "gradient",
    "is_known",
    "largest_norm",
    "move",
    "trust_ratio",
]
