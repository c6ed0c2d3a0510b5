"""docs/state.md: how a tensor of state is stored, as pure functions between values and codes.

Values lie in blocks of 128 along the last dimension. What is coded in 8 bits, and U16, has a scale for each block, the
largest magnitude in it, float32, in a last dimension of one. Only square roots, floors, multiplications and divisions:
every device gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

BLOCK = 128
"""Values that share a scale."""

LARGEST = torch.finfo(torch.float32).max
"""Scales and magnitudes are capped here. What is coded as that is infinite again: its element stands still."""

SMALL, UP, DOWN = 2.0**-60, 2.0**64, 2.0**-2
"""Blocks of a smaller scale are multiplied by `UP`, others by `DOWN`: exact, and then no reciprocal of a scale is too
small or too large for a normal float32."""

BELOW_ONE = 1 - 2.0**-22
"""What roots are multiplied by before a dithered code is rounded down: that of the largest value is below the last."""


class Encoding(NamedTuple):
    """One way to store values.

    Args:
        dtype: of the codes.
        is_blocked: whether each block has a scale.
        dithers: whether rounding up depends on `r`, the dither of each place in a block.
        encode: `encode(values, r)` gives codes and scales; the scales are None where there are none.
        decode: `decode(codes, scales)` gives float32 values.
    """

    dtype: torch.dtype
    is_blocked: bool
    dithers: bool
    encode: Callable[[Tensor, Any], tuple[Tensor, Tensor | None]]
    decode: Callable[[Tensor, Any], Tensor]

    @property
    def bytes(self) -> float:
        """Of one value, with its share of the scale."""
        return self.dtype.itemsize + (4 / BLOCK if self.is_blocked else 0)


def _scaled(values: Tensor) -> tuple[Tensor, Tensor]:
    """`y = |v| / a` in [0, 1], by one division a block, and `a`, its largest magnitude; both 0 where a block is 0."""
    magnitudes = values.abs().clamp(max=LARGEST)
    a = magnitudes.amax(dim=-1, keepdim=True)
    shift = torch.where(a < SMALL, UP, DOWN)
    return magnitudes * shift * torch.where(a == 0, 0.0, 1 / (a * shift)), a


def _up(y: Tensor, k: Tensor, r: Tensor, power: Callable[[Tensor], Tensor], unit: float) -> Tensor:
    """`k`, and one more where `y` is further than `r` of the way from the value of `k` to that of `k + 1`.

    Compared are values, not codes: so the mean of what is decoded is what was encoded.
    """
    low, high = power(k * unit), power((k + 1) * unit)
    return k + (y - low > r * (high - low)).to(k.dtype)


# as they are, and rounded ------------------------------------------------------------------------------------------


def _encode_float32(values: Tensor, r: object) -> tuple[Tensor, Tensor | None]:
    return values, None


def _decode_float32(codes: Tensor, a: object) -> Tensor:
    return codes


def _encode_bf16(values: Tensor, r: object) -> tuple[Tensor, Tensor | None]:
    return values.to(torch.bfloat16), None


def _decode_bf16(codes: Tensor, a: object) -> Tensor:
    return codes.to(torch.float32)


# what rounding takes away from a half-precision parameter ------------------------------------------------------------

_FINER = 4096.0
_LARGEST_HALF = 65504.0


def _encode_remainder(values: Tensor, r: object) -> tuple[Tensor, Tensor | None]:
    """`float16(4096 (x - z))` of `z - x`."""
    return (values * -_FINER).clamp(-_LARGEST_HALF, _LARGEST_HALF).to(torch.float16), None


def _decode_remainder(codes: Tensor, a: object) -> Tensor:
    return codes.to(torch.float32) * (-1 / _FINER)


# U16: unsigned, float16 of a share of the largest --------------------------------------------------------------------

_HALF, _LEAST = 2.0**15, 2.0**-24


def _encode_u16(values: Tensor, r: object) -> tuple[Tensor, Tensor | None]:
    y, a = _scaled(values)
    return torch.maximum(y * _HALF, torch.where(a == 0, 0.0, _LEAST)).to(torch.float16), a


def _decode_u16(codes: Tensor, a: Tensor) -> Tensor:
    return _infinite_again(codes.to(torch.float32) * (1 / _HALF) * a)


def _infinite_again(squares: Tensor) -> Tensor:
    """A moment whose square was infinite; as a number it would let its element leap at the next step."""
    return torch.where(squares >= 0.999 * LARGEST, torch.inf, squares)


# S8: signed, by the fourth root --------------------------------------------------------------------------------------


def _fourth(root: Tensor) -> Tensor:
    square = root * root
    return square * square


def _signed(values: Tensor, k: Tensor) -> Tensor:
    return torch.copysign(k, values).to(torch.int8)


def _encode_s8(values: Tensor, r: object) -> tuple[Tensor, Tensor | None]:
    y, a = _scaled(values)
    return _signed(values, (y.sqrt().sqrt() * 127 + 0.5).floor()), a


def _encode_s8_dithered(values: Tensor, r: Tensor) -> tuple[Tensor, Tensor | None]:
    y, a = _scaled(values)
    k = (y.sqrt().sqrt() * (127 * BELOW_ONE)).floor()
    return _signed(values, _up(y, k, r, _fourth, 1 / 127)), a


def _decode_s8(codes: Tensor, a: Tensor) -> Tensor:
    root = codes.to(torch.float32) * (1 / 127)
    return torch.copysign(_fourth(root) * a, root)


# U8: unsigned, by the eighth root ------------------------------------------------------------------------------------


def _eighth(root: Tensor) -> Tensor:
    square = root * root
    return _fourth(square)


def _encode_u8(values: Tensor, r: Tensor) -> tuple[Tensor, Tensor | None]:
    """A code is 0 only where the whole block is: a direction divided by 0 would be 10^4 times too long."""
    y, a = _scaled(values)
    k = (y.sqrt().sqrt().sqrt() * (255 * BELOW_ONE)).floor()
    k = _up(y, k, r, _eighth, 1 / 255)
    return torch.maximum(k, (a > 0).to(k.dtype)).to(torch.uint8), a


def _decode_u8(codes: Tensor, a: Tensor) -> Tensor:
    return _infinite_again(_eighth(codes.to(torch.float32) * (1 / 255)) * a)


FLOAT32 = Encoding(torch.float32, False, False, _encode_float32, _decode_float32)
BF16 = Encoding(torch.bfloat16, False, False, _encode_bf16, _decode_bf16)
REMAINDER = Encoding(torch.float16, False, False, _encode_remainder, _decode_remainder)
U16 = Encoding(torch.float16, True, False, _encode_u16, _decode_u16)
S8 = Encoding(torch.int8, True, False, _encode_s8, _decode_s8)
S8_DITHERED = Encoding(torch.int8, True, True, _encode_s8_dithered, _decode_s8)
U8 = Encoding(torch.uint8, True, True, _encode_u8, _decode_u8)

LEVELS: dict[str, dict[str, Encoding]] = {
    "float32": {},
    "compact": {
        "exp_avg": BF16,
        "exp_avg_diff": BF16,
        "exp_avg_sq": U16,
        "prev_grad": S8,
        "momentum_buffer": BF16,
        "x_gap": S8,
        "y_gap": S8,
    },
    "8bit": {
        "exp_avg": S8_DITHERED,
        "exp_avg_diff": S8,
        "exp_avg_sq": U8,
        "prev_grad": S8,
        "momentum_buffer": S8_DITHERED,
        "x_gap": S8,
        "y_gap": S8,
    },
}
"""Level of state -> how each tensor of it is stored; float32 what is not named."""

# the dither ----------------------------------------------------------------------------------------------------------

GOLDEN = 0.6180339887498949
_OFFSETS = [((79 * j) % BLOCK + 0.5) / BLOCK for j in range(BLOCK)]


def phase(t: int) -> float:
    """`phi` of step `t`, in [0, 1), of 20 bits: on the host, in float64."""
    return int((GOLDEN * t) % 1.0 * 2**20) / 2**20


def dither(phi: float | Tensor, device: torch.device) -> Tensor:
    """`r` of each place in a block, in [0, 1): the same whoever has the block, and after a resume."""
    at = torch.tensor(_OFFSETS, dtype=torch.float32, device="cpu").to(device, non_blocking=True) + phi
    return at - at.floor()
