"""The parameters that one launch steps, and the launches that make a step of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from ...rules import Rule
from ..layout import row_length
from ..shards import Sharing
from ..work import compute_dtype
from . import columns as col
from . import kernels, table
from .coefficients import coefficients
from .encodings import kept
from .table import in_blocks

TYPES = {
    torch.float32: tl.float32,
    torch.float64: tl.float64,
    torch.bfloat16: tl.bfloat16,
    torch.float16: tl.float16,
}

EXACT: dict[str, Any] = {"num_warps": 4, "enable_fp_fusion": False}
"""Every operation rounds, as in the other engines; contracting them would gain nothing where memory is waited for."""


@dataclass(frozen=True)
class Entry:
    """A parameter to step: its rule, the type of its gradient, its state ("step" too) and the number of its group.

    `suits_agr` says whether AGR is for the whole parameter; `sharing`, who has the rest of it, where it is a shard.
    """

    rule: Rule
    param: Tensor
    grad_dtype: torch.dtype
    state: Mapping[str, Tensor]
    group: int
    suits_agr: bool = True
    sharing: Sharing | None = None

    @property
    def shares_sums(self) -> bool:
        """Whether a sum over the whole of it has to be completed by other processes."""
        return self.sharing is not None and self.rule.takes_sums


@dataclass(frozen=True)
class Sent:
    """What a step has on the device beside the tables.

    Args:
        upload: the gradients' addresses, 0 where there is none, and from `hyper_at` on, the groups' hyper-parameters.
        grad_scale: what the loss was multiplied by, one element; None for 1.
        found_inf: not 0 where a gradient overflowed, one element; None without AMP.
        squares: sums of squares of the gradients, float64; None where their norm is not needed.
        norm: where the norm of all gradients goes, float64, one element; None where it is not needed.
        skips: whether nothing is stepped where that is more than is borne (a column of the hyper-parameters).
    """

    upload: Tensor
    hyper_at: int
    grad_scale: Tensor | None = None
    found_inf: Tensor | None = None
    squares: Tensor | None = None
    norm: Tensor | None = None
    skips: bool = False


class Batch:
    """Parameters of one device, one rule, and one type of parameter and gradient, which share their sums or do not.

    Some may be in blocks, all those at one level of state, and some end to end: a parameter's row says which it is.

    Args:
        entries: the parameters.
        first: where in the upload the addresses of their gradients begin.
    """

    def __init__(self, entries: Sequence[Entry], first: int) -> None:
        params = [e.param for e in entries]
        sizes, device = [table.walked(e.rule, e.param) for e in entries], params[0].device
        dtype = compute_dtype(params[0].dtype)
        # in groups without decay LAMB's ratio is 1: those parameters go along in both passes, and do without it
        self.rule = rule = next((e.rule for e in entries if e.rule.trust_ratio), entries[0].rule)
        self.first, self.size = first, len(entries)
        self.groups = sorted({e.group for e in entries})
        self.span = table.span(sum(sizes))
        self.table = table.rows(rule, entries, self.span).to(device)
        self.coefs = torch.zeros(self.size, col.COEFFICIENTS.value, dtype=dtype, device=device)
        self.spans = table.pieces(sizes, self.span).to(device)
        self.takes_sums = rule.takes_sums
        self.sharings = [e.sharing for e in entries] if entries[0].shares_sums else []
        self.chunks = self.spans if self.takes_sums else table.pieces(sizes, table.CHUNK).to(device)
        # of |g|, and of the squares of w and r: partial sums, and those over all that is here of each parameter
        self.parts = torch.zeros(3, len(self.spans) if self.takes_sums else 0, dtype=dtype, device=device)
        many = max(sizes) > table.MANY * self.span
        self.completes = self.takes_sums and (many or bool(self.sharings))
        self.leave_sums_in(torch.zeros(3, self.size if self.completes else 0, dtype=torch.float64, device=device))
        tensors = [*params, *(e.state[name] for e in entries for name in e.rule.kept)]
        self.aligned = not any(tensor.data_ptr() % 16 for tensor in tensors)
        self.types = {"G_TYPE": TYPES[entries[0].grad_dtype], "TYPE": TYPES[dtype]}
        flat, blocked = ([e for e in entries if in_blocks(e.rule) == way] for way in (False, True))
        self._kept = {
            "GAP": len(rule.moments_kind.state_names),
            "KEPT": kept(flat[0].rule) if flat else 0,
            "KEPT_IN_BLOCKS": kept(blocked[0].rule) if blocked else 0,
            "ODD": any(row_length(e.param.shape) % 4 for e in blocked),
        }
        names = {"TRANSFORM": rule.transform, "MOMENTS": rule.moments, "MOVEMENT": rule.movement_name}
        # without decay there is no reason to read `z` for its sake
        self._choices = {True: {**names, "DECAY": rule.decay}, False: {**names, "DECAY": "none"}}
        lengths = {"CHUNK": self.span if self.takes_sums else table.CHUNK, "BLOCK": table.BLOCK}
        common = {**self.types, "Z_TYPE": TYPES[params[0].dtype], **lengths, **EXACT}
        self._common = {aligned: {**common, "ALIGNED": aligned} for aligned in (True, False)}

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What the launches read and write beside parameters, gradients and state."""
        return self.table, self.coefs, self.spans, self.chunks, self.parts, self.sums

    def leave_sums_in(self, sums: Tensor) -> None:
        """Where the sums over all that is here of each parameter go, a row for each kind, and are found."""
        self.sums = sums
        self._found = tuple(sums if self.completes else self.parts)

    def add_squares(self, sent: Sent, aligned: bool, parts: Tensor) -> None:
        """Leave the sum of squares of each span of the gradients in `parts`."""
        if len(self.spans):
            kernels.squares[(len(self.spans),)](
                self.table, sent.upload, self.first, self.spans, parts, sent.grad_scale,
                ALIGNED=aligned, CHUNK=self.span, BLOCK=table.BLOCK, SCALED=sent.grad_scale is not None,
                **self.types, **EXACT,
            )  # fmt: skip

    def stages(self, sent: Sent, aligned: bool, decays: bool) -> Iterator[None]:
        """Count the parameters on, and step them; twice halting where shared sums can be completed.

        First those of `|g|`, then those of the squares of `w` and `r`.

        Args:
            sent: what is on the device for this step.
            aligned: whether every gradient begins at a multiple of 16 bytes.
            decays: whether there is any weight decay at this step.
        """
        choices = self._choices[decays]
        coefficients[(self.size,)](
            self.table, sent.upload, self.first, sent.hyper_at, self.coefs,
            sent.squares, 0 if sent.squares is None else len(sent.squares), sent.norm, sent.grad_scale, sent.found_inf,
            NORMED=sent.squares is not None, SKIPS=sent.skips, SCALED=sent.grad_scale is not None,
            STOPPABLE=sent.found_inf is not None, BLOCK=table.BLOCK, num_warps=1, enable_fp_fusion=False, **choices,
        )  # fmt: skip
        common, grid = self._common[self.aligned and aligned], (len(self.chunks),)
        work = (self.table, sent.upload, self.first, self.chunks, self.coefs)
        step = {**choices, **common, **self._kept, "COMPLETE": self.completes}
        if self.rule.transform != "none":
            if len(self.chunks):
                kernels.abs_sums[grid](*work, self.parts[0], DECAY=choices["DECAY"], **common)
            self._add_here(slice(0, 1))
        yield
        if self.rule.trust_ratio:
            if len(self.chunks):
                kernels.step[grid](*work, self._found[0], *self.parts[1:], PASS="first", **step)
            self._add_here(slice(1, 3))
        yield
        if len(self.chunks):
            kernels.step[grid](*work, *self._found, PASS="second" if self.rule.trust_ratio else "whole", **step)

    def _add_here(self, kinds: slice) -> None:
        """Add up the partial sums of each parameter once, where the programs are not to do it each by itself."""
        if self.completes:
            self.add_up(self.parts[kinds], self.sums[kinds])

    def add_up(self, parts: Tensor, sums: Tensor) -> None:
        """Leave the sum of the partial sums of each parameter, for each kind of them, a row each, in `sums`."""
        kernels.add_up[(self.size, len(parts))](
            self.table, parts, parts.stride(0), sums, sums.stride(0), BLOCK=table.ADDED, **EXACT
        )
