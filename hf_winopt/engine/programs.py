"""What the compiler is asked for: a pass of a rule over tensors of one kind, as a module that it can trace."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import rules
from ..rules import Rule
from . import passes
from .passes import Pass
from .work import compute_dtype

Kind = tuple[torch.dtype, torch.dtype, torch.device]
"""Type of the parameter, type of the gradient, device."""

Program = Callable[[list[Tensor]], Sequence[Tensor]]
"""Takes the coefficients, `z`, `g`, the state and what else the pass is given, all flat; returns what the pass does."""

EXAMPLE = 300_007
"""Elements of the parameter shown to the compiler. From much fewer it would conclude that one thread is enough."""

OTHERS = {passes.whole_step: (), passes.to_ratio: (EXAMPLE,), passes.from_ratio: (EXAMPLE, None)}
"""What each pass is given beside the parameter: tensors of so many elements, None for a single number."""


class Request(NamedTuple):
    """What a program is compiled for: a pass of a rule, the names of its coefficients, and a kind of tensors."""

    one_pass: Pass
    rule: Rule
    names: tuple[str, ...]
    kind: Kind


class Run(torch.nn.Module):
    """A pass as the compiler wants it: a module whose only argument is a list of tensors."""

    def __init__(self, request: Request) -> None:
        super().__init__()
        self.one_pass, self.rule, self.names, self.kind = request
        self.state_names = self.rule.state_names

    def forward(self, tensors: list[Tensor]) -> list[Tensor]:
        table, z, g, *rest = tensors
        state = dict(zip(self.state_names, rest))
        dtype = compute_dtype(z.dtype)
        c: rules.Coefficients = dict(zip(self.names, table.unbind()))
        return self.one_pass(self.rule, c, z, z.to(dtype), g.to(dtype), state, *rest[len(state) :])

    def examples(self) -> list[Tensor]:
        """Tensors such as it will be called with."""
        z_dtype, g_dtype, device = self.kind
        wide = functools.partial(torch.ones, dtype=compute_dtype(z_dtype), device=device)
        z, g = (torch.ones(EXAMPLE, dtype=dtype, device=device) for dtype in (z_dtype, g_dtype))
        others = [wide(()) if size is None else wide(size) for size in OTHERS[self.one_pass]]
        return [wide(len(self.names)), z, g, *(wide(EXAMPLE) for _ in self.state_names), *others]

    def options(self) -> dict[str, Any]:
        """For the compiler: else it reads and computes the moments twice, once to store them, once for `||r||`."""
        return {"realize_opcount_threshold": 0} if self.one_pass is passes.to_ratio else {}
