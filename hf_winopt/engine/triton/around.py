"""The twin of `rules.around`: the passes before and after another optimizer's step, one launch each for all parameters.

A parameter's row of addresses has its distances where a step of ours has the state, and behind them the tensors of what
waits for those in codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl

from ...rules import Rule
from ..layout import fills_blocks, row_length
from ..passes import waits_apart
from ..work import Work, compute_dtype
from . import columns as col
from . import table
from .arithmetic import number, pointer
from .batch import EXACT, TYPES, Entry
from .encodings import BLOCK as IN_A_BLOCK
from .encodings import FLOAT32, REMAINDER, kept
from .movement import win2_gaps, win_gap
from .plan import capturing, current
from .stored import read, write
from .walks import block_at, chunk_of, rows_at


@triton.jit
def leave(
    c, row, z, at, mask, lines, some,
    MOVEMENT: tl.constexpr, WAITS: tl.constexpr, KEPT: tl.constexpr, TYPE: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    """The parameter becomes `x`; what waits for the distances, as if `x'` were 0."""
    gap = read(row, at, mask, lines, some, 0, KEPT, TYPE, ALIGNED)
    x = z - gap
    if MOVEMENT == "win2":
        y_gap = read(row, at, mask, lines, some, 1, KEPT, TYPE, ALIGNED)
        gap, y_gap = win2_gaps(c, -x, gap, y_gap)
        tl.store(pointer(row, col.STATE + WAITS + 1, TYPE, ALIGNED) + at, y_gap, mask=mask)
    else:
        gap = win_gap(c, -x, gap)
    tl.store(pointer(row, col.STATE + WAITS, TYPE, ALIGNED) + at, gap, mask=mask)
    return x


@triton.jit
def arrive(
    c, row, x, stored_z, at, mask, lines, some,
    MOVEMENT: tl.constexpr, WAITS: tl.constexpr, KEPT: tl.constexpr, TYPE: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    """The parameter, left at `x'` by the base, becomes the new `z`: as far ahead as its distance says once stored.

    Distances are not dithered.
    """
    KIND: tl.constexpr = KEPT & 15
    gap = tl.load(pointer(row, col.STATE + WAITS, TYPE, ALIGNED) + at, mask=mask)
    gap = gap + number(c, col.RESPONSE_X_GAP) * x
    if MOVEMENT == "win2":
        y_gap = tl.load(pointer(row, col.STATE + WAITS + 1, TYPE, ALIGNED) + at, mask=mask)
        y_gap = y_gap + number(c, col.RESPONSE_Y_GAP) * x
        write(row, at, mask, lines, y_gap, 0.0, 1, KEPT, TYPE, ALIGNED)
    if (KIND == FLOAT32) | (KIND == REMAINDER):
        new_z = (x + gap).to(stored_z.dtype)
        write(row, at, mask, lines, new_z.to(TYPE) - x, 0.0, 0, KEPT, TYPE, ALIGNED)
    else:
        new_z = (x + write(row, at, mask, lines, gap, 0.0, 0, KEPT, TYPE, ALIGNED)).to(stored_z.dtype)
    return new_z


@triton.jit
def one_block(
    c, row, z_of, at, mask, lines, some, AFTER: tl.constexpr,
    MOVEMENT: tl.constexpr, WAITS: tl.constexpr, KEPT: tl.constexpr, TYPE: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    stored_z = tl.load(z_of + at, mask=mask)
    z = stored_z.to(TYPE)
    if AFTER:
        new_z = arrive(c, row, z, stored_z, at, mask, lines, some, MOVEMENT, WAITS, KEPT, TYPE, ALIGNED)
    else:
        new_z = leave(c, row, z, at, mask, lines, some, MOVEMENT, WAITS, KEPT, TYPE, ALIGNED).to(stored_z.dtype)
    tl.store(z_of + at, new_z, mask=mask)


@triton.jit
def chunk_end_to_end(
    c, row, z_of, start, length, n, MASKED: tl.constexpr, AFTER: tl.constexpr, MOVEMENT: tl.constexpr,
    WAITS: tl.constexpr, KEPT: tl.constexpr, TYPE: tl.constexpr, ALIGNED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    for offset in range(0, length, BLOCK):
        at, mask = block_at(start + offset, n, MASKED, BLOCK)
        one_block(c, row, z_of, at, mask, at, mask, AFTER, MOVEMENT, WAITS, KEPT, TYPE, ALIGNED)


@triton.jit
def chunk_in_blocks(
    c, row, z_of, start, length, n, FULL: tl.constexpr, BY_FOUR: tl.constexpr, AFTER: tl.constexpr,
    MOVEMENT: tl.constexpr, WAITS: tl.constexpr, KEPT: tl.constexpr, TYPE: tl.constexpr, ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    for offset in range(0, length, BLOCK):
        at, mask, lines, some = rows_at(row, start + offset, n, FULL, BY_FOUR, BLOCK)
        one_block(c, row, z_of, at, mask, lines, some, AFTER, MOVEMENT, WAITS, KEPT, TYPE, ALIGNED)


@triton.jit
def one_pass(
    table, chunks, coefs, AFTER: tl.constexpr, MOVEMENT: tl.constexpr, WAITS: tl.constexpr, KEPT: tl.constexpr,
    BLOCKED: tl.constexpr, BY_FOUR: tl.constexpr, WHOLE: tl.constexpr, Z_TYPE: tl.constexpr, TYPE: tl.constexpr,
    ALIGNED: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A chunk of a parameter (see `kernels`), before the base's step or after it; `coefs` is one row for all.

    WHOLE: whether the blocks of all parameters, where they are in blocks, have 128 elements each.
    """
    i, start = chunk_of(chunks, CHUNK)
    row = table + i * col.ROW
    z_of = pointer(row, col.Z, Z_TYPE, ALIGNED)
    if BLOCKED:
        n = number(row, col.BLOCKS)
        length = tl.minimum(n * IN_A_BLOCK - start, CHUNK)
        if WHOLE & (length == CHUNK):
            chunk_in_blocks(
                coefs, row, z_of, start, CHUNK, n, True, True, AFTER, MOVEMENT, WAITS, KEPT, TYPE, ALIGNED, BLOCK
            )
        else:
            chunk_in_blocks(
                coefs, row, z_of, start, length, n, False, BY_FOUR, AFTER, MOVEMENT, WAITS, KEPT, TYPE, ALIGNED, BLOCK
            )
    else:
        n = number(row, col.NUMEL)
        if start + CHUNK <= n:
            chunk_end_to_end(
                coefs, row, z_of, start, CHUNK, n, False, AFTER, MOVEMENT, WAITS, KEPT, TYPE, ALIGNED, BLOCK
            )
        else:
            chunk_end_to_end(
                coefs, row, z_of, start, n - start, n, True, AFTER, MOVEMENT, WAITS, KEPT, TYPE, ALIGNED, BLOCK
            )


class _Prepared:
    """The tables of a pass over some parameters, for as long as all of their tensors lie where they lay."""

    def __init__(self, rule: Rule, works: Sequence[Work]) -> None:
        entries = [Entry(rule, work.z, work.z.dtype, {**work.state, "step": work.z}, 0) for work in works]
        z, waits = works[0].z, waits_apart(rule)
        rows = table.rows(rule, entries, table.CHUNK)
        places = range(len(rule.gaps), len(rule.gaps) + len(waits))
        tensors = [[work.z, *work.state.values()] for work in works]
        for row, work in zip(rows, works):
            apart = list(work.state.values())[len(rule.kept) :]
            for place, tensor in zip(places, apart):
                row[col.STATE.value + place] = tensor.data_ptr()
        coefs = torch.zeros(col.COEFFICIENTS.value, dtype=torch.float64, device="cpu")
        for name, value in works[0].c.items():
            coefs[getattr(col, name.upper()).value] = value
        self._tables = (
            rows.to(z.device),
            table.pieces([table.walked(rule, work.z) for work in works], table.CHUNK).to(z.device),
            coefs.to(compute_dtype(z.dtype)).to(z.device),
        )
        self._chosen: dict[str, Any] = {
            "MOVEMENT": rule.movement_name,
            "WAITS": len(rule.gaps) if waits else 0,
            "KEPT": kept(rule),
            "BLOCKED": rule.is_blocked,
            "BY_FOUR": not any(row_length(work.z.shape) % 4 for work in works) if rule.is_blocked else True,
            "WHOLE": all(fills_blocks(work.z.shape) for work in works) if rule.is_blocked else True,
            "Z_TYPE": TYPES[z.dtype],
            "TYPE": TYPES[compute_dtype(z.dtype)],
            "ALIGNED": not any(tensor.data_ptr() % 16 for each in tensors for tensor in each),
            "CHUNK": table.CHUNK,
            "BLOCK": table.BLOCK,
        }

    def run(self, after: bool) -> None:
        if len(self._tables[1]):
            one_pass[(len(self._tables[1]),)](*self._tables, AFTER=after, **self._chosen, **EXACT)


_prepared: dict[tuple[Any, ...], _Prepared] = {}
"""Those of the last steps, by where all tensors lie."""

_of_graphs: list[_Prepared] = []
"""Those that a captured graph reads at every replay."""

FEW = 16
"""How many are remembered: two for each set of parameters that have gradients, of a few optimizers."""


def step(rule: Rule, works: Sequence[Work], after: bool) -> None:
    """One pass over all parameters, those of one type and device by one launch."""
    for mine in _alike(works):
        tensors = (tensor for work in mine for tensor in (work.z, *work.state.values()))
        key = (rule, tuple(mine[0].c.values()), mine[0].z.dtype, mine[0].z.device, *_places(tensors))
        if key not in _prepared and capturing(mine[0].z.device):
            raise RuntimeError(
                "Win cannot be captured in a graph before it has taken a step outside of it, nor with state='compact', "
                "which has other tensors at every step"
            )
        found = _prepared.pop(key, None) or _Prepared(rule, mine)
        _prepared[key] = found
        while len(_prepared) > FEW:
            _prepared.pop(next(iter(_prepared)))
        if capturing(mine[0].z.device):
            _of_graphs.append(found)
        with current(mine[0].z.device):
            found.run(after)


def _places(tensors: Any) -> list[tuple[int, torch.Size]]:
    return [(tensor.data_ptr(), tensor.shape) for tensor in tensors]


def _alike(works: Sequence[Work]) -> list[list[Work]]:
    kinds: dict[tuple[torch.dtype, torch.device], list[Work]] = {}
    for work in works:
        kinds.setdefault((work.z.dtype, work.z.device), []).append(work)
    return list(kinds.values())
