"""The mathematics of every optimizer here, written once, as pure functions of tensors."""

from .arithmetic import Coefficient, Coefficients, is_known
from .around import RESPONSE, around_coefficients, arrive, leave
from .encodings import BLOCK, FLOAT32, REMAINDER, S8, U8, U16, Encoding, dither
from .moments import MOMENTS, State, trust_ratio
from .movement import MOVEMENTS
from .rule import ACCELERATIONS, DECAYS, ROUNDING, STATES, Rule, coefficients, largest_norm, scale_of
from .step import advance, apply, direction_again, gradient, move, w_of
from .transforms import OFF, TRANSFORMS, agr_ends, agr_suits

__all__ = [
    "ACCELERATIONS",
    "BLOCK",
    "DECAYS",
    "FLOAT32",
    "MOMENTS",
    "MOVEMENTS",
    "OFF",
    "REMAINDER",
    "RESPONSE",
    "ROUNDING",
    "S8",
    "STATES",
    "TRANSFORMS",
    "U8",
    "U16",
    "Coefficient",
    "Coefficients",
    "Encoding",
    "Rule",
    "State",
    "advance",
    "agr_ends",
    "agr_suits",
    "apply",
    "around_coefficients",
    "arrive",
    "coefficients",
    "direction_again",
    "dither",
    "gradient",
    "is_known",
    "largest_norm",
    "leave",
    "move",
    "scale_of",
    "trust_ratio",
    "w_of",
]
