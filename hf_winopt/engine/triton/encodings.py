"""The twins of `rules.encodings`: values, `[blocks, 128]` where they have scales, as codes and back.

How all tensors of a rule are kept is one number, four bits for each in their order: what a kernel is compiled for. 0 is
of what is not kept.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ...rules import Rule
from ...rules import encodings as rules
from . import columns as col
from .arithmetic import divided, number, square_root

FLOAT32 = tl.constexpr(1)  # as it is: float64 beside float64 parameters
BF16 = tl.constexpr(2)
REMAINDER = tl.constexpr(3)
U16 = tl.constexpr(4)  # this and those behind it have scales
S8 = tl.constexpr(5)
S8_DITHERED = tl.constexpr(6)
U8 = tl.constexpr(7)

NUMBERS = {
    rules.FLOAT32: FLOAT32.value,
    rules.BF16: BF16.value,
    rules.REMAINDER: REMAINDER.value,
    rules.U16: U16.value,
    rules.S8: S8.value,
    rules.S8_DITHERED: S8_DITHERED.value,
    rules.U8: U8.value,
}

BLOCK = tl.constexpr(rules.BLOCK)
LARGEST = tl.constexpr(rules.LARGEST)
BELOW_ONE = tl.constexpr(rules.BELOW_ONE)
SMALL, UP, DOWN = tl.constexpr(rules.SMALL), tl.constexpr(rules.UP), tl.constexpr(rules.DOWN)


def kept(rule: Rule) -> int:
    """How all that a rule keeps is kept, as one number."""
    return sum(NUMBERS[encoding] << 4 * place for place, encoding in enumerate(rule.encodings.values()))


@triton.jit
def dither(c):
    """`r` of each place in a block, `[1, 128]`."""
    places = (tl.arange(0, BLOCK) * 79) % BLOCK
    at = (places.to(tl.float32) + 0.5) * (1 / BLOCK) + number(c, col.PHI)
    return (at - tl.floor(at))[None, :]


@triton.jit
def scaled(values):
    """`|v| / a` in [0, 1], and `a`, the largest magnitude of each block, `[blocks, 1]`."""
    magnitudes = tl.abs(values)
    magnitudes = tl.where(magnitudes > LARGEST, LARGEST, magnitudes)
    # as whole numbers they have the same order, and what is no number is more than all
    a = tl.max(magnitudes.to(tl.int32, bitcast=True), axis=1, keep_dims=True).to(tl.float32, bitcast=True)
    shift = tl.where(a < SMALL, UP, DOWN)
    return magnitudes * shift * tl.where(a == 0, 0.0, divided(tl.full(a.shape, 1.0, tl.float32), a * shift)), a


@triton.jit
def power(root, IS_EIGHTH: tl.constexpr):
    """The fourth power, or the eighth."""
    square = root * root
    if IS_EIGHTH:
        square = square * square
    return square * square


@triton.jit
def up(y, k, r, IS_EIGHTH: tl.constexpr, UNIT: tl.constexpr):
    """`k`, and one more where `y` is further than `r` of the way from the value of `k` to that of `k + 1`."""
    low = power(k * UNIT, IS_EIGHTH)
    high = power((k + 1) * UNIT, IS_EIGHTH)
    return tl.where(y - low > r * (high - low), k + 1, k)


@triton.jit
def with_scales(values, r, KIND: tl.constexpr):
    """Codes and scales."""
    y, a = scaled(values)
    if KIND == U16:
        y = y * 32768.0
        codes = tl.where(y < tl.where(a == 0, 0.0, 2.0**-24), 2.0**-24, y).to(tl.float16)
    elif KIND == U8:
        k = tl.floor(square_root(square_root(square_root(y))) * (255 * BELOW_ONE))
        k = up(y, k, r, True, 1 / 255)
        codes = tl.where((a > 0) & (k < 1), 1.0, k).to(tl.uint8)
    else:
        root = square_root(square_root(y))
        if KIND == S8:
            k = tl.floor(root * 127 + 0.5)
        else:
            k = up(y, tl.floor(root * (127 * BELOW_ONE)), r, False, 1 / 127)
        codes = tl.where(values < 0, -k, k).to(tl.int8)
    return codes, a


@triton.jit
def infinite_again(squares):
    """A moment whose square was infinite; as a number it would let its element leap at the next step."""
    return tl.where(squares >= 0.999 * LARGEST, float("inf"), squares)


@triton.jit
def from_scales(codes, a, KIND: tl.constexpr):
    """The values of codes."""
    if KIND == U16:
        values = infinite_again(codes.to(tl.float32) * (1 / 32768.0) * a)
    elif KIND == U8:
        values = infinite_again(power(codes.to(tl.float32) * (1 / 255), True) * a)
    else:
        root = codes.to(tl.float32) * (1 / 127)
        values = power(root, False) * a
        values = tl.where(root < 0, -values, values)
    return values


@triton.jit
def without_scales(values, KIND: tl.constexpr):
    """Codes of what has none."""
    if KIND == BF16:
        codes = values.to(tl.bfloat16)
    elif KIND == REMAINDER:
        codes = values * -4096.0
        codes = tl.where(codes > 65504.0, 65504.0, tl.where(codes < -65504.0, -65504.0, codes)).to(tl.float16)
    else:
        codes = values
    return codes


@triton.jit
def from_no_scales(codes, KIND: tl.constexpr):
    """The values of codes that have none."""
    if KIND == BF16:
        values = codes.to(tl.float32)
    elif KIND == REMAINDER:
        values = codes.to(tl.float32) * (-1 / 4096.0)
    else:
        values = codes
    return values
