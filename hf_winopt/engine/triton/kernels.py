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
from .passes import gradient
from .walks import block_at, chunk_of, walk_flat, walk_in_blocks

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


@triton.jit(do_not_specialize=["first"], do_not_specialize_on_alignment=["of_g", "of_w", "of_r"])
def step(
    table, upload, first, chunks, coefs, of_g, of_w, of_r,
    PASS: tl.constexpr, TRANSFORM: tl.constexpr, MOMENTS: tl.constexpr, MOVEMENT: tl.constexpr, DECAY: tl.constexpr,
    GAP: tl.constexpr, KEPT: tl.constexpr, KEPT_IN_BLOCKS: tl.constexpr, ODD: tl.constexpr,
    Z_TYPE: tl.constexpr, G_TYPE: tl.constexpr, TYPE: tl.constexpr, ALIGNED: tl.constexpr,
    CHUNK: tl.constexpr, BLOCK: tl.constexpr, COMPLETE: tl.constexpr,
):  # fmt: skip
    """Step a chunk: in one pass ("whole"), or with a trust ratio in two ("first": the moments and the norms, "second").

    Args:
        table, chunks, coefs: the parameters' rows, the chunks, the coefficients.
        upload, first: what the step sent to the device; the addresses of the gradients begin at `first`.
        of_g: sums of `|g|` (read with a transform): partial ones by chunks of this same length, or complete ones.
        of_w, of_r: sums of squares: partial ones (written by the first pass), read by the second as `of_g` is.
        GAP: which of the tensors of the state is `x_gap`.
        KEPT, KEPT_IN_BLOCKS: how the state of parameters that are not in blocks is kept (`encodings.kept`), and that of
            those that are; 0 where there are none such.
        ODD: whether any of those has rows whose length is no multiple of 4.
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
        z_of = pointer(row, col.Z, Z_TYPE, ALIGNED)
        g_of = pointer(upload + first, i, G_TYPE, ALIGNED)
        if KEPT_IN_BLOCKS != 0:
            if number(row, col.BLOCKS) != 0:
                walk_in_blocks(
                    c, row, z_of, g_of, abs_sum, ratio, of_w, of_r, start, CHUNK, BLOCK, ODD, PASS,
                    TRANSFORM, MOMENTS, MOVEMENT, DECAY, GAP, KEPT_IN_BLOCKS, TYPE, ALIGNED,
                )  # fmt: skip
        if KEPT != 0:
            if number(row, col.BLOCKS) == 0:
                walk_flat(
                    c, row, z_of, g_of, abs_sum, ratio, of_w, of_r, start, CHUNK, BLOCK, PASS,
                    TRANSFORM, MOMENTS, MOVEMENT, DECAY, GAP, KEPT, TYPE, ALIGNED,
                )  # fmt: skip
