"""The small operations of `rules.arithmetic`, and how a kernel reads what it needs, for Triton.

`c` is everywhere the address of a parameter's coefficients; `name` is a column of `columns`.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def number(c, name: tl.constexpr):
    """The coefficient (or other entry of a row) called `name`."""
    return tl.load(c + name)


@triton.jit
def toward(tensor, target, weight):
    """`(1 - weight) tensor + weight target`, written so that equal ends stay exactly as they are."""
    return tensor + weight * (target - tensor)


@triton.jit
def toward_square(mean, root, weight):
    """`(1 - weight) mean + weight root^2`, where a mean that is infinite stays so."""
    return (1 - weight) * mean + weight * root * root


@triton.jit
def square_root(tensor):
    """Rounded correctly; plain `sqrt` is an approximation in float32."""
    if tensor.dtype == tl.float32:
        root = tl.sqrt_rn(tensor)
    else:
        root = tl.sqrt(tensor)
    return root


@triton.jit
def divided(numerator, denominator):
    """Rounded correctly; `/` is an approximation in float32."""
    if denominator.dtype == tl.float32:
        quotient = tl.div_rn(numerator, denominator)
    else:
        quotient = numerator / denominator
    return quotient


@triton.jit
def pointer(row, name: tl.constexpr, TYPE: tl.constexpr, ALIGNED: tl.constexpr):
    """The address in a row, as a pointer to `TYPE`.

    Where it is known to be a multiple of 16, four elements are read at a time, of fewer bytes too: then all tensors lie
    in the same registers as float32 ones do, and none has to be exchanged between threads.
    """
    address = tl.load(row + name)
    typed = address.to(tl.pointer_type(TYPE))
    if ALIGNED:
        if (TYPE == tl.bfloat16) | (TYPE == tl.float16):
            typed = tl.multiple_of(tl.multiple_of(address, 8).to(tl.pointer_type(TYPE)), 8)
        elif (TYPE == tl.int8) | (TYPE == tl.uint8):
            typed = tl.multiple_of(tl.multiple_of(address, 4).to(tl.pointer_type(TYPE)), 4)
        else:
            typed = tl.multiple_of(tl.multiple_of(address, 16).to(tl.pointer_type(TYPE)), 16)
    return typed


@triton.jit
def added(parts, first, count, BLOCK: tl.constexpr):
    """`count` partial sums beginning at `first`, added in float64 and in one order, so that the bits never differ."""
    lanes = tl.zeros([BLOCK], dtype=tl.float64)
    for start in range(0, count, BLOCK):
        at = start + tl.arange(0, BLOCK)
        lanes += tl.load(parts + first + at, mask=at < count, other=0.0).to(tl.float64)
    return tl.sum(lanes, axis=0)
