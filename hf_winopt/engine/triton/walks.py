"""How a program walks its chunk: all of a parameter end to end, or row by row in blocks of 128 that share a scale.

Where a row is no whole number of blocks, its last is shorter, and the places of the elements that it lacks are walked
too, and masked.
"""

from __future__ import annotations

import triton
import triton.language as tl

from . import columns as col
from .arithmetic import number
from .encodings import BLOCK as IN_A_BLOCK
from .encodings import dither
from .passes import conservative, direction, move


@triton.jit
def chunk_of(chunks, CHUNK: tl.constexpr):
    """The number of the parameter that this program works on, and where its chunk begins there."""
    entry = tl.load(chunks + tl.program_id(0))
    return entry >> 32, (entry & 0xFFFFFFFF) * CHUNK


@triton.jit
def block_at(start, n, MASKED: tl.constexpr, BLOCK: tl.constexpr):
    """The places of a block's elements, and which of them exist; all, where that is known, so that loads stay wide."""
    at = start + tl.arange(0, BLOCK)
    if MASKED:
        mask = at < n
    else:
        mask = tl.full([BLOCK], True, tl.int1)
    return at, mask


@triton.jit
def rows_at(row, start, n, FULL: tl.constexpr, BY_FOUR: tl.constexpr, BLOCK: tl.constexpr):
    """The places of some blocks' elements, and which exist; the places of their scales, and which exist.

    Args:
        start: where the first of them begins, were all of 128 elements.
        n: the number of blocks of the parameter.
        FULL: whether it has all of them, and all of 128 elements.
        BY_FOUR: whether the lengths of rows are multiples of 4.
    """
    line = start // IN_A_BLOCK + tl.arange(0, BLOCK // IN_A_BLOCK)[:, None]
    place = tl.arange(0, IN_A_BLOCK)[None, :]
    if FULL:
        at = start + tl.arange(0, BLOCK // IN_A_BLOCK)[:, None] * IN_A_BLOCK + place
        some = tl.full([BLOCK // IN_A_BLOCK, 1], True, tl.int1)
        mask = tl.full([BLOCK // IN_A_BLOCK, IN_A_BLOCK], True, tl.int1)
    else:
        length = number(row, col.QUARTERS) * 4
        if not BY_FOUR:
            length += number(row, col.LEFT_OVER)
        some = line < n
        of_row = number(row, col.BLOCKS_OF_ROW).to(tl.int32)
        short = line.to(tl.int32)  # to divide 64 bits takes long
        column = (short % of_row) * IN_A_BLOCK + place
        at = (short // of_row).to(tl.int64) * length + column
        mask = some & (column < length)
        if not BY_FOUR:
            # not so, but the mask can end anywhere, so that each is read by itself: threads have four neighbours all
            # the same, and a warp has whole blocks
            at = tl.multiple_of(at, [1, 4])
    return at, mask, line, some


@triton.jit
def step_block(
    c, row, z_of, g_of, abs_sum, ratio, r, at, mask, lines, some, w_squares, r_squares, PASS: tl.constexpr,
    TRANSFORM: tl.constexpr, MOMENTS: tl.constexpr, MOVEMENT: tl.constexpr, DECAY: tl.constexpr,
    GAP: tl.constexpr, KEPT: tl.constexpr, TYPE: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    """One pass over what is in registers at a time; for the first of two, the sums of squares of `w` and direction."""
    stored_z = tl.load(z_of + at, mask=mask)
    z = stored_z.to(TYPE)
    g = tl.load(g_of + at, mask=mask).to(TYPE)
    u = direction(
        c, row, z, g, abs_sum, r, at, mask, lines, some, PASS, TRANSFORM, MOMENTS, DECAY, KEPT, TYPE, ALIGNED
    )  # fmt: skip
    if PASS == "first":
        w, _ = conservative(row, z, at, mask, lines, some, GAP, KEPT, TYPE, ALIGNED)
        w_squares += tl.where(mask, w * w, 0.0)
        r_squares += tl.where(mask, u * u, 0.0)
    else:
        new_z = move(
            c, row, stored_z, u * ratio, r, at, mask, lines, some, MOVEMENT, GAP, KEPT, TYPE, ALIGNED
        )  # fmt: skip
        tl.store(z_of + at, new_z, mask=mask)
    return w_squares, r_squares


@triton.jit
def leave(of_w, of_r, w_squares, r_squares, PASS: tl.constexpr):
    """The sums over a chunk, where they are asked for."""
    if PASS == "first":
        tl.store(of_w + tl.program_id(0), w_squares)
        tl.store(of_r + tl.program_id(0), r_squares)


# end to end ---------------------------------------------------------------------------------------------------------


@triton.jit
def part_of_flat(
    c, row, z_of, g_of, abs_sum, ratio, of_w, of_r, start, length, n, MASKED: tl.constexpr, BLOCK: tl.constexpr,
    PASS: tl.constexpr, TRANSFORM: tl.constexpr, MOMENTS: tl.constexpr, MOVEMENT: tl.constexpr, DECAY: tl.constexpr,
    GAP: tl.constexpr, KEPT: tl.constexpr, TYPE: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    w_squares = tl.zeros([BLOCK], dtype=TYPE)
    r_squares = tl.zeros([BLOCK], dtype=TYPE)
    for offset in range(0, length, BLOCK):
        at, mask = block_at(start + offset, n, MASKED, BLOCK)
        w_squares, r_squares = step_block(
            c, row, z_of, g_of, abs_sum, ratio, 0.0, at, mask, at, mask, w_squares, r_squares,
            PASS, TRANSFORM, MOMENTS, MOVEMENT, DECAY, GAP, KEPT, TYPE, ALIGNED,
        )  # fmt: skip
    leave(of_w, of_r, tl.sum(w_squares, axis=0), tl.sum(r_squares, axis=0), PASS)


@triton.jit
def walk_flat(
    c, row, z_of, g_of, abs_sum, ratio, of_w, of_r, start, CHUNK: tl.constexpr, BLOCK: tl.constexpr,
    PASS: tl.constexpr, TRANSFORM: tl.constexpr, MOMENTS: tl.constexpr, MOVEMENT: tl.constexpr, DECAY: tl.constexpr,
    GAP: tl.constexpr, KEPT: tl.constexpr, TYPE: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    """One pass over a chunk; the first of two leaves the sums of squares of `w` and of the direction."""
    n = number(row, col.NUMEL)
    if start + CHUNK <= n:
        part_of_flat(
            c, row, z_of, g_of, abs_sum, ratio, of_w, of_r, start, CHUNK, n, False, BLOCK,
            PASS, TRANSFORM, MOMENTS, MOVEMENT, DECAY, GAP, KEPT, TYPE, ALIGNED,
        )  # fmt: skip
    else:
        part_of_flat(
            c, row, z_of, g_of, abs_sum, ratio, of_w, of_r, start, n - start, n, True, BLOCK,
            PASS, TRANSFORM, MOMENTS, MOVEMENT, DECAY, GAP, KEPT, TYPE, ALIGNED,
        )  # fmt: skip


# in blocks ----------------------------------------------------------------------------------------------------------


@triton.jit
def part_in_blocks(
    c, row, z_of, g_of, abs_sum, ratio, of_w, of_r, start, length, n, FULL: tl.constexpr, BY_FOUR: tl.constexpr,
    BLOCK: tl.constexpr,
    PASS: tl.constexpr, TRANSFORM: tl.constexpr, MOMENTS: tl.constexpr, MOVEMENT: tl.constexpr, DECAY: tl.constexpr,
    GAP: tl.constexpr, KEPT: tl.constexpr, TYPE: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    w_squares = tl.zeros([BLOCK // IN_A_BLOCK, IN_A_BLOCK], dtype=TYPE)
    r_squares = tl.zeros([BLOCK // IN_A_BLOCK, IN_A_BLOCK], dtype=TYPE)
    r = dither(c)
    for offset in range(0, length, BLOCK):
        at, mask, lines, some = rows_at(row, start + offset, n, FULL, BY_FOUR, BLOCK)
        w_squares, r_squares = step_block(
            c, row, z_of, g_of, abs_sum, ratio, r, at, mask, lines, some, w_squares, r_squares,
            PASS, TRANSFORM, MOMENTS, MOVEMENT, DECAY, GAP, KEPT, TYPE, ALIGNED,
        )  # fmt: skip
    w_sum = tl.sum(tl.sum(w_squares, axis=1), axis=0)
    r_sum = tl.sum(tl.sum(r_squares, axis=1), axis=0)
    leave(of_w, of_r, w_sum, r_sum, PASS)


@triton.jit
def walk_in_blocks(
    c, row, z_of, g_of, abs_sum, ratio, of_w, of_r, start,
    CHUNK: tl.constexpr, BLOCK: tl.constexpr, ODD: tl.constexpr,
    PASS: tl.constexpr, TRANSFORM: tl.constexpr, MOMENTS: tl.constexpr, MOVEMENT: tl.constexpr, DECAY: tl.constexpr,
    GAP: tl.constexpr, KEPT: tl.constexpr, TYPE: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    """As `walk_flat`. Rows whose lengths are no multiples of 4 are looked for only where there are any (ODD)."""
    n = number(row, col.BLOCKS)
    over = number(row, col.LEFT_OVER)
    length = tl.minimum(n * IN_A_BLOCK - start, CHUNK)
    full = (length == CHUNK) & ((number(row, col.QUARTERS) * 4 + over) % IN_A_BLOCK == 0)
    if full:
        part_in_blocks(
            c, row, z_of, g_of, abs_sum, ratio, of_w, of_r, start, CHUNK, n, True, True, BLOCK,
            PASS, TRANSFORM, MOMENTS, MOVEMENT, DECAY, GAP, KEPT, TYPE, ALIGNED,
        )  # fmt: skip
    elif over == 0:
        part_in_blocks(
            c, row, z_of, g_of, abs_sum, ratio, of_w, of_r, start, length, n, False, True, BLOCK,
            PASS, TRANSFORM, MOMENTS, MOVEMENT, DECAY, GAP, KEPT, TYPE, ALIGNED,
        )  # fmt: skip
    if ODD:
        if over != 0:
            part_in_blocks(
                c, row, z_of, g_of, abs_sum, ratio, of_w, of_r, start, length, n, False, False, BLOCK,
                PASS, TRANSFORM, MOMENTS, MOVEMENT, DECAY, GAP, KEPT, TYPE, ALIGNED,
            )  # fmt: skip
