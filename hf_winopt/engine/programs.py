"""What the compiler is asked for: a pass of a rule over tensors of one kind, as a module that it can trace."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import rules
from ..rules import BLOCK, FLOAT32, Rule
from . import passes
from .passes import Pass
from .work import compute_dtype

Kind = tuple[torch.dtype, torch.dtype, torch.device]
"""Type of the parameter, type of the gradient, device."""

Program = Callable[[list[Tensor]], Sequence[Tensor]]
"""Takes the coefficients, `z`, `g`, the state, the dither if the rule asks for it, and what else the pass is given, all
flat or all in blocks; returns what the pass does."""

EXAMPLE = 300_007
"""Elements of the parameter shown to the compiler. From much fewer it would conclude that one thread is enough."""

EXAMPLE_BLOCKS = 2_351
"""The same of a parameter in blocks."""

_OTHERS: dict[Pass, tuple[str, ...]] = {
    passes.to_ratio: ("direction",),
    passes.from_ratio: ("direction", "ratio"),
    passes.part_of_step: ("abs_sum",),
    passes.part_to_norms: ("abs_sum",),
    passes.part_from_ratio: ("ratio", "abs_sum"),
}


def others(one_pass: Pass, rule: Rule) -> tuple[str, ...]:
    """What a pass is given beside the parameter: a tensor of its size ("direction"), or a single number."""
    if one_pass in (passes.before_base, passes.after_base):
        return ("direction",) * len(passes.waits_apart(rule))
    names = _OTHERS.get(one_pass, ())
    return tuple(name for name in names if name != "abs_sum" or rule.transform != "none")


def in_loops(rule: Rule, kind: Kind) -> bool:
    """Whether loops of our own (`cpp`) step such parameters, in blocks: on a CPU, what is coded or of two bytes.

    The compiler's loops read and write numbers of two bytes slowly, and in older versions leave out what rounds them.
    """
    types = [kind[0], *(encoding.dtype for encoding in rule.encodings.values() if encoding is not FLOAT32)]
    return kind[2].type == "cpu" and (rule.is_blocked or any(dtype.itemsize == 2 for dtype in types))


class Request(NamedTuple):
    """What a program is compiled for: a pass of a rule, the names of its coefficients, and a kind of tensors."""

    one_pass: Pass
    rule: Rule
    names: tuple[str, ...]
    kind: Kind

    @property
    def in_loops(self) -> bool:
        """Whether it is made of loops of our own."""
        return in_loops(self.rule, self.kind)


def _widened(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """What `to` gives back, the tensor itself too, older versions of torch forbid to write to."""
    return tensor if tensor.dtype == dtype else tensor.to(dtype)


class Run(torch.nn.Module):
    """A pass as the compiler wants it: a module whose only argument is a list of tensors."""

    def __init__(self, request: Request) -> None:
        super().__init__()
        self.one_pass, self.rule, self.names, self.kind = request
        self.blocked = self.rule.is_blocked or request.in_loops
        self.state_names = tuple(self.rule.kept)

    def forward(self, tensors: list[Tensor]) -> list[Tensor]:
        table, z, g, *rest = tensors
        state = dict(zip(self.state_names, rest))
        dtype = compute_dtype(z.dtype)
        c: rules.Coefficients = dict(zip(self.names, table.unbind()))
        given = rest[len(state) :]
        if self.rule.dithers:
            c["dither"], *given = given
        return self.one_pass(self.rule, c, z, _widened(z, dtype), _widened(g, dtype), state, *given)

    def examples(self) -> list[Tensor]:
        """Tensors such as it will be called with."""
        z_dtype, g_dtype, device = self.kind
        arithmetic = compute_dtype(z_dtype)
        wide = functools.partial(torch.ones, dtype=arithmetic, device=device)
        size = (EXAMPLE_BLOCKS, BLOCK) if self.blocked else (EXAMPLE,)
        state = [
            torch.ones(
                (EXAMPLE_BLOCKS, 1) if name not in self.rule.encodings else size,
                dtype=torch.float32
                if name not in self.rule.encodings
                else arithmetic
                if encoding is FLOAT32
                else encoding.dtype,
                device=device,
            )
            for name, encoding in self.rule.kept.items()
        ]
        z, g = (torch.ones(size, dtype=dtype, device=device) for dtype in (z_dtype, g_dtype))
        dither = [wide(BLOCK)] if self.rule.dithers else []
        given = [wide(size if each == "direction" else ()) for each in others(self.one_pass, self.rule)]
        return [wide(len(self.names)), z, g, *state, *dither, *given]

    def options(self) -> dict[str, Any]:
        """For the compiler.

        Else it reads and computes the moments twice, once to store them, once for `||r||`; and it leaves out what
        rounds the parameter, of which the distance must know.
        """
        reads_once = {"realize_opcount_threshold": 0} if self.one_pass is passes.to_ratio else {}
        return {**reads_once, "emulate_precision_casts": self.kind[0].itemsize == 2}
