"""The tables that the kernels walk by, made on the host: rows of addresses, chunks, and what changes every step."""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...rules import BLOCK as IN_A_BLOCK
from ...rules import Rule, scale_of
from ..layout import blocks_per_row, row_length
from . import columns as col

CHUNK = 4096
"""Elements that a program steps: enough that finding its work costs little, few enough for an even load."""

SPAN = 16384
"""The same where sums are taken, if there are enough of them to keep a GPU busy: fewer partial sums to add up."""

MANY = 1024
"""So many spans keep a GPU busy. And so many partial sums a program adds up by itself; of more, one does it for all."""

BLOCK = 1024
"""Elements in registers at a time; 8 for each thread of 4 warps."""

ADDED = 4096
"""Partial sums in registers at a time, where one program adds up all of a parameter's."""

HYPER_ROW = col.HYPER.value
HYPER_FORMAT = f"dq{HYPER_ROW - 2}d"  # LR, LR_AT, the others


def pieces(sizes: Sequence[int], length: int) -> Tensor:
    """Cut parameters of such sizes into chunks: `parameter << 32 | chunk` for each, int64; none for empty ones."""
    counts = torch.tensor([-(-size // length) for size in sizes], dtype=torch.int64, device="cpu")
    owner = torch.repeat_interleave(torch.arange(len(sizes), device="cpu"), counts)
    begins = counts.cumsum(0) - counts
    return owner << 32 | torch.arange(len(owner), device="cpu") - begins[owner]


def span(elements: int) -> int:
    """How long the spans of parameters of so many elements in all are."""
    return SPAN if elements >= MANY * SPAN else CHUNK


def in_blocks(rule: Rule) -> bool:
    """Whether a parameter is walked row by row in blocks: where anything of it may have scales."""
    return rule.state != "float32"


def walked(rule: Rule, param: Tensor) -> int:
    """How many places are walked: of a parameter in blocks, those too that the last block of a row lacks."""
    if not in_blocks(rule):
        return param.numel()
    return param.shape[0] * blocks_per_row(param.shape) * IN_A_BLOCK


def rows(rule: Rule, entries: Sequence[Any], span: int) -> Tensor:
    """One row for each parameter (see `batch.Entry`): int64, `(len(entries), ROW)`, with the columns of `columns`."""
    table, first_span = [], 0
    for entry in entries:
        p, state = entry.param, entry.state
        spans = -(-walked(entry.rule, p) // span)
        transforms = rule.transform == "adal" or (rule.transform == "agr" and entry.suits_agr)
        row = [p.data_ptr(), state["step"].data_ptr(), p.numel(), entry.group, transforms]
        row += [entry.rule.trust_ratio, first_span, spans]
        row += _addresses(state, entry.rule.state_names)
        row += _addresses(state, map(scale_of, entry.rule.state_names))
        if in_blocks(entry.rule):
            of_row = blocks_per_row(p.shape)
            row += [p.shape[0] * of_row, of_row, *divmod(row_length(p.shape), 4)]
        table.append(row + [0] * (col.ROW.value - len(row)))
        first_span += spans
    return torch.tensor(table, dtype=torch.int64, device="cpu")


def _addresses(state: Mapping[str, Tensor], names: Iterable[str]) -> list[int]:
    """Of tensors of a state, 0 for those that it lacks, as many as there are columns."""
    found = [state[name].data_ptr() if name in state else 0 for name in names]
    return found + [0] * (col.SCALE.value - col.STATE.value - len(found))


def _log2(number: float) -> float:
    return math.log2(number) if number > 0 else -math.inf


def hyper_row(group: Mapping[str, Any], lr: float, lr_at: int, bears: float | None = None) -> tuple[float, ...]:
    """A group's hyper-parameters in the order of `columns`, to be packed by `HYPER_FORMAT`.

    Args:
        group: the parameter group; what its optimizer has no use for may be missing.
        lr, lr_at: the learning rate, or the address of one on the device (float32), 0 for none.
        bears: the largest norm of all gradients with which a step is taken; None where it does not matter.
    """
    betas = (*group.get("betas", ()), 0.0, 0.0, 0.0)[:3]
    r1, r2 = group["reckless_steps"]
    agr_steps = group.get("agr_steps")
    return (
        lr,
        lr_at,
        group["weight_decay"],
        _log2(group.get("weight_decay_gamma", 1.0)),
        *map(_log2, betas),
        *betas,
        group.get("eps", 0.0),
        group.get("momentum", 0.0),
        group.get("dampening", 0.0),
        r1,
        r2,
        math.inf if agr_steps is None else agr_steps,
        group.get("restart_every", 0),
        group["max_grad_norm"],
        -1.0 if group["maximize"] else 1.0,
        bool(group.get("inverse_sqrt_lr")),
        min(math.inf if bears is None else bears, sys.float_info.max),  # infinite is none
        group.get("momentum_decay", 0.0),
    )


def upload(addresses: Sequence[int], hypers: Sequence[tuple[float, ...]]) -> bytearray:
    """What a step sends to the device in one piece: the gradients' addresses, then the groups' rows."""
    numbers = [number for row in hypers for number in row]
    return bytearray(struct.pack(f"{len(addresses)}q" + HYPER_FORMAT * len(hypers), *addresses, *numbers))
