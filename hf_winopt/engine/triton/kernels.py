"""The kernels: one launch walks every parameter of one storage type, in chunks of equal length.

A program takes one chunk. Which one stands in `chunks`: the parameter's number in the upper 32 bits, the chunk's in the
lower. Sums over whole parameters are taken in a pass before the one that needs them: every program leaves the sum over
its chunk, and whoever needs the whole adds those up (of many, one program for all), always in the same order, so that
the same inputs give the same bits. The rule's choices are constants of the compilation; a new combination needs no new
kernel.
"""

from __future__ import annotations

import triton
import triton.language as tl

from . import columns as col
from .arithmetic import added, divided, number, pointer
from .moments import trust_ratio
from .passes import direction, gradient, move


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


# the sum of squares of all gradients, for clipping ------------------------------------------------------------------


@triton.jit
def squares_of_chunk(g_of, factor, start, length, n, MASKED: tl.constexpr, BLOCK: tl.constexpr, TYPE: tl.constexpr):
    lanes = tl.zeros([BLOCK], dtype=TYPE)
    for offset in range(0, length, BLOCK):
        at, mask = block_at(start + offset, n, MASKED, BLOCK)
        g = tl.where(mask, tl.load(g_of + at, mask=mask).to(TYPE) * factor, 0.0)
        lanes += g * g
    return tl.sum(lanes, axis=0)


@triton.jit(do_not_specialize=["first"], do_not_specialize_on_alignment=["parts"])
def squares(
    table, upload, first, chunks, parts, grad_scale,
    G_TYPE: tl.constexpr, TYPE: tl.constexpr, ALIGNED: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr,
    SCALED: tl.constexpr,
):  # fmt: skip
    """`parts[program]`: the sum of the squares of a chunk of the gradients, unscaled."""
    i, start = chunk_of(chunks, CHUNK)
    missing = tl.load(upload + first + i) == 0
    n = tl.where(missing, 0, number(table + i * col.ROW, col.NUMEL))
    g_of = pointer(upload + first, i, G_TYPE, ALIGNED)
    factor = tl.full([], 1.0, TYPE)
    if SCALED:
        factor = divided(factor, tl.load(grad_scale).to(TYPE))
    if start + CHUNK <= n:
        part = squares_of_chunk(g_of, factor, start, CHUNK, n, False, BLOCK, TYPE)
    else:
        part = squares_of_chunk(g_of, factor, start, n - start, n, True, BLOCK, TYPE)
    tl.store(parts + tl.program_id(0), part)


# sum|g| of each parameter, for AGR and AdaL --------------------------------------------------------------------------


@triton.jit
def abs_of_chunk(
    c, z_of, g_of, start, length, n, MASKED: tl.constexpr, BLOCK: tl.constexpr,
    DECAY: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    lanes = tl.zeros([BLOCK], dtype=TYPE)
    for offset in range(0, length, BLOCK):
        at, mask = block_at(start + offset, n, MASKED, BLOCK)
        g = tl.load(g_of + at, mask=mask).to(TYPE)
        z = g
        if DECAY == "l2":
            z = tl.load(z_of + at, mask=mask).to(TYPE)
        lanes += tl.where(mask, tl.abs(gradient(c, z, g, DECAY)), 0.0)
    return tl.sum(lanes, axis=0)


@triton.jit(do_not_specialize=["first"], do_not_specialize_on_alignment=["parts"])
def abs_sums(
    table, upload, first, chunks, coefs, parts,
    Z_TYPE: tl.constexpr, G_TYPE: tl.constexpr, TYPE: tl.constexpr, ALIGNED: tl.constexpr,
    CHUNK: tl.constexpr, BLOCK: tl.constexpr, DECAY: tl.constexpr,
):  # fmt: skip
    """`parts[program]`: `sum|g|` of a chunk of the gradient as section 0 leaves it; none where the transform is off."""
    i, start = chunk_of(chunks, CHUNK)
    row = table + i * col.ROW
    c = coefs + i * col.COEFFICIENTS
    if (number(c, col.TRANSFORMING) != 0) & (number(c, col.LIVE) != 0):
        n = number(row, col.NUMEL)
        z_of = pointer(row, col.Z, Z_TYPE, ALIGNED)
        g_of = pointer(upload + first, i, G_TYPE, ALIGNED)
        if start + CHUNK <= n:
            part = abs_of_chunk(c, z_of, g_of, start, CHUNK, n, False, BLOCK, DECAY, TYPE)
        else:
            part = abs_of_chunk(c, z_of, g_of, start, n - start, n, True, BLOCK, DECAY, TYPE)
        tl.store(parts + tl.program_id(0), part)


# sums over whole parameters --------------------------------------------------------------------------------------


@triton.jit
def added_here(row, parts, BLOCK: tl.constexpr):
    """The sum over all of a parameter that is here, of the partial sums of its chunks; float64."""
    return added(parts, number(row, col.FIRST_SPAN), number(row, col.SPANS), BLOCK)


@triton.jit
def whole(row, i, sums, COMPLETE: tl.constexpr, BLOCK: tl.constexpr):
    """The sum over a whole parameter: of partial sums, unless they have been added up."""
    if COMPLETE:
        found = tl.load(sums + i)
    else:
        found = added_here(row, sums, BLOCK)
    return found


@triton.jit(do_not_specialize=["parts_row", "sums_row"], do_not_specialize_on_alignment=["parts", "sums"])
def add_up(table, parts, parts_row, sums, sums_row, BLOCK: tl.constexpr):
    """`sums[kind, program]`: the sum over all that is here of one parameter, of each kind of partial sums."""
    i = tl.program_id(0)
    kind = tl.program_id(1)
    found = added_here(table + i * col.ROW, parts + kind * parts_row, BLOCK)
    tl.store(sums + kind * sums_row + i, found)


# the step -----------------------------------------------------------------------------------------------------------


@triton.jit
def step_chunk(
    c, row, z_of, g_of, abs_sum, ratio, start, length, n,
    MASKED: tl.constexpr, BLOCK: tl.constexpr, PASS: tl.constexpr,
    TRANSFORM: tl.constexpr, MOMENTS: tl.constexpr, MOVEMENT: tl.constexpr, DECAY: tl.constexpr, X: tl.constexpr,
    TYPE: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    """One pass over a chunk; for the first of two passes, the sums of squares of `w` and of `r`."""
    w_squares = tl.zeros([BLOCK], dtype=TYPE)
    r_squares = tl.zeros([BLOCK], dtype=TYPE)
    for offset in range(0, length, BLOCK):
        at, mask = block_at(start + offset, n, MASKED, BLOCK)
        stored_z = tl.load(z_of + at, mask=mask)
        z = stored_z.to(TYPE)
        g = tl.load(g_of + at, mask=mask).to(TYPE)
        r = direction(
            c, row, z, g, abs_sum, at, mask, PASS == "second", TRANSFORM, MOMENTS, DECAY, TYPE, ALIGNED
        )  # fmt: skip
        if PASS == "first":
            w = z
            if (MOVEMENT == "win") | (MOVEMENT == "win2"):  # the sequence that moves conservatively
                w = tl.load(pointer(row, X, TYPE, ALIGNED) + at, mask=mask)
            w_squares += tl.where(mask, w * w, 0.0)
            r_squares += tl.where(mask, r * r, 0.0)
        else:
            z = move(c, row, z, r * ratio, at, mask, MOVEMENT, X, TYPE, ALIGNED)
            tl.store(z_of + at, z.to(stored_z.dtype), mask=mask)
    return tl.sum(w_squares, axis=0), tl.sum(r_squares, axis=0)


@triton.jit(do_not_specialize=["first"], do_not_specialize_on_alignment=["of_g", "of_w", "of_r"])
def step(
    table, upload, first, chunks, coefs, of_g, of_w, of_r,
    PASS: tl.constexpr, TRANSFORM: tl.constexpr, MOMENTS: tl.constexpr, MOVEMENT: tl.constexpr, DECAY: tl.constexpr,
    X: tl.constexpr, Z_TYPE: tl.constexpr, G_TYPE: tl.constexpr, TYPE: tl.constexpr, ALIGNED: tl.constexpr,
    CHUNK: tl.constexpr, BLOCK: tl.constexpr, COMPLETE: tl.constexpr,
):  # fmt: skip
    """Step a chunk: in one pass ("whole"), or with a trust ratio in two ("first": the moments and the norms, "second").

    Args:
        table, chunks, coefs: the parameters' rows, the chunks, the coefficients.
        upload, first: what the step sent to the device; the addresses of the gradients begin at `first`.
        of_g: sums of `|g|` (read with a transform): partial ones by chunks of this same length, or complete ones.
        of_w, of_r: sums of squares: partial ones (written by the first pass), read by the second as `of_g` is.
    """
    i, start = chunk_of(chunks, CHUNK)
    row = table + i * col.ROW
    c = coefs + i * col.COEFFICIENTS
    if number(c, col.LIVE) != 0:
        abs_sum = tl.full([], 0.0, TYPE)
        if TRANSFORM != "none":
            if number(c, col.TRANSFORMING) != 0:
                abs_sum = whole(row, i, of_g, COMPLETE, BLOCK).to(TYPE)
        ratio = tl.full([], 1.0, TYPE)
        if PASS == "second":
            if number(row, col.ADAPTED) != 0:
                w_squares = whole(row, i, of_w, COMPLETE, BLOCK)
                r_squares = whole(row, i, of_r, COMPLETE, BLOCK)
                ratio = trust_ratio(w_squares, r_squares).to(TYPE)
        n = number(row, col.NUMEL)
        z_of = pointer(row, col.Z, Z_TYPE, ALIGNED)
        g_of = pointer(upload + first, i, G_TYPE, ALIGNED)
        if start + CHUNK <= n:
            w, r = step_chunk(
                c, row, z_of, g_of, abs_sum, ratio, start, CHUNK, n, False, BLOCK, PASS,
                TRANSFORM, MOMENTS, MOVEMENT, DECAY, X, TYPE, ALIGNED,
            )  # fmt: skip
        else:
            w, r = step_chunk(
                c, row, z_of, g_of, abs_sum, ratio, start, n - start, n, True, BLOCK, PASS,
                TRANSFORM, MOMENTS, MOVEMENT, DECAY, X, TYPE, ALIGNED,
            )  # fmt: skip
        if PASS == "first":
            tl.store(of_w + tl.program_id(0), w)
            tl.store(of_r + tl.program_id(0), r)
