"""Every instruction on numbers of all kinds, against what PTX's manual says that it computes."""

from __future__ import annotations

import random
from itertools import product

import numpy as np
import pytest
import torch

from .live import Live
from .machine import Machine
from .operations import OPERATIONS
from .program import Program
from .reference import expected
from .written import kernel

COMPUTING = {name: operation for name, operation in OPERATIONS.items() if operation.values}
THREADS = 128
SPECIAL = {
    1: [0, 1],
    8: [0, 1, 127, 128, 255],
    16: [0, 1, 0x7FFF, 0x8000, 0xFFFF, 0x0400, 0x03FF, 0x7BFF, 0x7C00, 0xFC00, 0x7E00, 0x7F80, 0xFF80, 0x7FC0, 0x3C00],
    32: [0, 1, 31, 32, 0x7FFFFFFF, 1 << 31, 0xFFFFFFFF, 0x00800000, 0x807FFFFF, 0x7F7FFFFF, 0x7F800000, 0xFF800000,
         0x7FC00000, 0x3F800000, 0xBF000000, 0x40200000, 0x4F000000, 0xCF000000, 0x477FF000, 0x477FEFFF, 0x33000000,
         0x3F801000, 0x3F808000, 0x7F7F8000],
    64: [0, 1, 63, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 52, (1 << 52) - 1, 0x7FEFFFFFFFFFFFFF, 0x7FF << 52,
         0xFFF << 52, 0x7FF8 << 48, 0x3FF0 << 48, 0xBFE0 << 48, 0x4004 << 48, 0x43E0 << 48, 0xC3E0 << 48, 0x3690 << 48,
         0x40EFFE << 40, 0x40EFFDFFFFFFFFFF, 0x3FF0000010000000, 0x47EFFFFFF0000000],
}  # fmt: skip
"""Zeros, ones, ends of ranges, subnormal, infinite, no number, halfway between two, too large for the next type."""

BODY = """
mov.u32 %block, %ctaid.x;
mad.lo.u32 %index, %block, {threads}, %thread;
mul.wide.u32 %offset, %index, 8;
{loads}
{opcode} {operands};
{stores}
"""


def text_of(name: str, sources: int, results: int) -> str:
    """A kernel that takes the 64 bits of each source from a table, and leaves as many of each result."""
    opcode, _, form = name.partition(" ")
    taken, made = [f"%source{k}" for k in range(sources)], [f"%result{k}" for k in range(results)]
    left, right = ", ".join(made), ", ".join(taken)
    operands = {"to 2": f"{{{left}}}, {right}", "from 2": f"{left}, {{{right}}}"}.get(form, f"{left}, {right}")
    places = [f"add.s64 %place{k}, %base{k}, %offset;" for k in range(sources + results)]
    loads = [f"ld.global.b64 {register}, [%place{k}];" for k, register in enumerate(taken)]
    stores = [f"st.global.b64 [%place{k}], {register};" for k, register in enumerate(made, sources)]
    body = BODY.format(
        threads=THREADS, loads="\n".join(places + loads), opcode=opcode, operands=operands, stores="\n".join(stores)
    )
    return kernel(body, sources + results, THREADS)


def cases(widths: list[int], rng: random.Random) -> list[tuple[int, ...]]:
    """Special numbers beside each other, any numbers, and both; in the bits above a number stands anything."""
    special = list(product(*(SPECIAL[width] for width in widths)))
    found = rng.sample(special, min(len(special), 450))
    for share in (0.0, 0.5):
        found += [
            tuple(rng.choice(SPECIAL[width]) if rng.random() < share else rng.getrandbits(width) for width in widths)
            for _ in range(120)
        ]
    found += found[: -len(found) % THREADS]
    return [tuple(value | _above(width, rng) for value, width in zip(row, widths)) for row in found]


def _above(width: int, rng: random.Random) -> int:
    """A predicate has no other bits than its own."""
    return rng.getrandbits(64) >> width << width if width > 1 else 0


@pytest.mark.parametrize("name", COMPUTING)
def test_every_instruction_computes_what_the_manual_says(name):
    operation = COMPUTING[name]
    is_byte = name.startswith("cvt.")
    widths = [1 if kind == "u8" and not is_byte else int(kind[1:]) for kind in operation.sources]
    rows = cases(widths, random.Random(name))
    sources = [torch.from_numpy(np.array(column, np.uint64).view(np.int64)) for column in zip(*rows)]
    results = [torch.zeros(len(rows), dtype=torch.int64) for _ in operation.results]
    program = Program(text_of(name, len(sources), len(results)))
    tensors = [*sources, *results]
    blocks = [(k, 0, 0) for k in range(len(rows) // THREADS)]
    live = Live(("a table", tensor) for tensor in tensors)
    Machine().launch(program, [tensor.data_ptr() for tensor in tensors], live, blocks, (len(blocks), 1, 1))
    for row, *found in zip(rows, *(result.tolist() for result in results)):
        for kind, got, wanted in zip(operation.results, found, expected(name, row), strict=True):
            assert same(got, wanted, kind), f"{name} {[hex(each) for each in row]}: {got:#x}, expected {wanted:#x}"


def same(got: int, wanted: int, kind: str) -> bool:
    """Equal bits, with nothing above them; in double precision PTX leaves open which number stands for none."""
    size = int(kind[1:])
    got, wanted = got % (1 << 64), wanted % (1 << size)
    none = 0x7FF << 52
    return got == wanted or (kind == "f64" and all(each % (1 << 63) > none for each in (got, wanted)))
