"""The judge of the encodings: how state is stored, in slow, plain numpy float64, one block at a time.

It shares no code with hf_winopt. A block is a one-dimensional array; scales are `a`, the largest magnitude in it.
"""

from __future__ import annotations

import math

import numpy as np

Array = np.ndarray

LARGEST = float(np.finfo(np.float32).max)
LARGEST_HALF = 65504.0


def share(v: Array) -> tuple[Array, float]:
    """`y = |v| / a`, and `a`; what is infinite counts as the largest float32."""
    magnitude = np.minimum(np.abs(v.astype(np.float64)), LARGEST)
    a = float(np.max(magnitude))
    return (magnitude / a if a > 0 else magnitude), a


def signed(v: Array, k: Array) -> Array:
    return np.where(v < 0, -k, k).astype(np.int64)


def one_more(y: Array, k: Array, r: Array, codes: int, power: int) -> Array:
    """`k`, and one more where y - (k/codes)^power > r ((k+1)^power - k^power) / codes^power."""
    return k + (y - (k / codes) ** power > r * ((k + 1) ** power - k**power) / codes**power)


# S8: the fourth root, signed ---------------------------------------------------------------------------------------


def s8(v: Array) -> tuple[Array, float]:
    y, a = share(v)
    return signed(v, np.floor(127 * y**0.25 + 0.5)), a


def s8_dithered(v: Array, r: Array) -> tuple[Array, float]:
    y, a = share(v)
    k = np.minimum(np.floor(127 * y**0.25), 126)
    return signed(v, one_more(y, k, r, 127, 4)), a


def s8_decoded(k: Array, a: float) -> Array:
    k = k.astype(np.float64)
    return np.sign(k) * (k / 127) ** 4 * a


# U16: half precision, unsigned -------------------------------------------------------------------------------------


def u16(v: Array) -> tuple[Array, float]:
    y, a = share(v)
    with np.errstate(under="ignore"):
        return np.maximum(32768 * y, 2.0**-24 if a > 0 else 0.0).astype(np.float16), a


def u16_decoded(h: Array, a: float) -> Array:
    return 2.0**-15 * a * h.astype(np.float64)


# U8: the eighth root, unsigned -------------------------------------------------------------------------------------


def u8(v: Array, r: Array) -> tuple[Array, float]:
    y, a = share(v)
    k = np.minimum(np.floor(255 * y**0.125), 254)
    k = one_more(y, k, r, 255, 8)
    return (np.maximum(k, 1) if a > 0 else k).astype(np.int64), a


def u8_decoded(k: Array, a: float) -> Array:
    return (k.astype(np.float64) / 255) ** 8 * a


# the dither --------------------------------------------------------------------------------------------------------


def phi(t: int) -> float:
    """frac(0.618... t), of 20 bits."""
    product = 0.6180339887498949 * t
    return math.floor((product - math.floor(product)) * 2**20) / 2**20


def dither(t: int) -> Array:
    """`r` of the 128 places of a block."""
    places = np.arange(128)
    r = phi(t) + ((79 * places) % 128 + 0.5) / 128
    return r - np.floor(r)


# what rounding takes from a half-precision parameter ----------------------------------------------------------------


def remainder(z_less_x: Array) -> Array:
    """float16(4096 (x - z)), clamped."""
    return np.clip(-4096 * z_less_x.astype(np.float64), -LARGEST_HALF, LARGEST_HALF).astype(np.float16)


def remainder_decoded(s: Array) -> Array:
    return -s.astype(np.float64) / 4096
