"""The state in memory: read as values, and written as it is kept.

`row` is the parameter's row of addresses, `PLACE` that of a tensor among its state, `KEPT` how all of it is kept;
`at` are the places of the elements, `mask` says which exist; `lines` are the places of the scales, `[blocks, 1]`, and
`some` says which of those exist.
"""

from __future__ import annotations

import triton
import triton.language as tl

from . import columns as col
from .arithmetic import pointer
from .encodings import (
    BF16,
    BLOCK,
    FLOAT32,
    REMAINDER,
    U8,
    U16,
    from_no_scales,
    from_scales,
    with_scales,
    without_scales,
)


@triton.jit
def codes_of(row, PLACE: tl.constexpr, KIND: tl.constexpr, TYPE: tl.constexpr, ALIGNED: tl.constexpr):
    """The address of a tensor of the state."""
    if KIND == FLOAT32:
        codes = pointer(row, col.STATE + PLACE, TYPE, ALIGNED)
    elif KIND == BF16:
        codes = pointer(row, col.STATE + PLACE, tl.bfloat16, ALIGNED)
    elif (KIND == REMAINDER) | (KIND == U16):
        codes = pointer(row, col.STATE + PLACE, tl.float16, ALIGNED)
    elif KIND == U8:
        codes = pointer(row, col.STATE + PLACE, tl.uint8, ALIGNED)
    else:
        codes = pointer(row, col.STATE + PLACE, tl.int8, ALIGNED)
    return codes


@triton.jit
def read(
    row, at, mask, lines, some,
    PLACE: tl.constexpr, KEPT: tl.constexpr, TYPE: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    """The values."""
    KIND: tl.constexpr = (KEPT >> 4 * PLACE) & 15
    codes = tl.load(codes_of(row, PLACE, KIND, TYPE, ALIGNED) + at, mask=mask)
    if KIND >= U16:
        a = tl.load(pointer(row, col.SCALE + PLACE, tl.float32, False) + lines, mask=some)
        values = from_scales(codes, a, KIND)
    else:
        values = from_no_scales(codes, KIND)
    return values


@triton.jit
def write(
    row, at, mask, lines, values, r,
    PLACE: tl.constexpr, KEPT: tl.constexpr, TYPE: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    """Leave values in memory; what `read` would find there then. `r` is the dither."""
    KIND: tl.constexpr = (KEPT >> 4 * PLACE) & 15
    codes_at = codes_of(row, PLACE, KIND, TYPE, ALIGNED) + at
    if KIND >= U16:
        codes, a = with_scales(tl.where(mask, values, 0.0), r, KIND)
        tl.store(codes_at, codes, mask=mask)
        first = tl.arange(0, BLOCK)[None, :]
        scales_at = tl.broadcast_to(lines, values.shape) + first
        if ALIGNED:
            # only the first of these addresses is written to, so that nothing depends on what is said of them; it has
            # every scale stored by the threads that have it
            scales_at = tl.multiple_of(scales_at, [1, 4])
        scales_at = pointer(row, col.SCALE + PLACE, tl.float32, ALIGNED) + scales_at
        tl.store(scales_at, tl.broadcast_to(a, values.shape), mask=mask & (first == 0))
        again = from_scales(codes, a, KIND)
    else:
        codes = without_scales(values, KIND)
        tl.store(codes_at, codes, mask=mask)
        again = from_no_scales(codes, KIND)
    return again
