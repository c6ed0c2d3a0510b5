"""What an engine is given, and how tensors of any layout become flat ones that a rule can run over.

A `Work` is one parameter to step. A `Segment` is one stretch of elements with one set of coefficients: a whole large
parameter, or many small ones laid end to end, since a tensor of 768 elements costs as many calls as one of a million.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..rules import Coefficients, Rule
from .layout import fills_blocks, in_blocks, out_of_blocks, scales_in_blocks
from .shards import PLAIN, Sharing

SMALL = 1 << 16
"""Parameters of at most so many elements are stepped together."""

TOGETHER = 1 << 18
"""Elements of small parameters in one segment, at most: what one operation writes is in the cache for the next."""


NOTHING = torch.empty(0, device="cpu")
"""The gradient of what is held ready for one."""


@dataclass(eq=False)
class Work:
    """One parameter with its state, to be stepped by an engine that goes by works: held ready, or of one step.

    Args:
        z: the parameter, floating point, any shape and layout.
        state: the tensors of `rule.kept`, of the same shape but for scales; what is stored as it is is float32
            (float64 for float64 parameters).
        g: its gradient, same shape; never modified.
        c: the step's coefficients, shared by all works of the same hyper-parameters and step count. An entry
            "abs_sum" says that `sum|g|` is known already (`OFF` where AGR is); otherwise the engine finds it.
        step: its step count.
        sharing: who has the rest of the parameter, if `z` is a shard of it; None if it is whole.
        suits_agr: whether AGR is for the whole parameter.
        engine: the name of the engine.
        ready: `in_place(rule, [z, *state])`, where it may be remembered.
    """

    z: Tensor
    state: dict[str, Tensor]
    g: Tensor = NOTHING
    c: Coefficients = field(default_factory=dict)
    step: Tensor = NOTHING
    sharing: Sharing | None = None
    suits_agr: bool = True
    engine: str = "eager"
    ready: list[Tensor] | None = None

    def given(self, g: Tensor, c: Coefficients) -> Work:
        """The same parameter with the gradient and the coefficients of a step."""
        return Work(self.z, self.state, g, c, self.step, self.sharing, self.suits_agr, self.engine, self.ready)

    def joins(self) -> bool:
        """Whether the parameter can be stepped together with others: small, of plain tensors, and laid out plainly."""
        if self.z.numel() > SMALL:
            return False
        tensors = self.tensors()
        return PLAIN.issuperset(map(type, tensors)) and all(map(Tensor.is_contiguous, tensors))

    def views(self, blocked: bool = False) -> list[Tensor] | None:
        """`z`, `g` and state, one-dimensional, in one common order, or in blocks; None where that asks for copies."""
        if self.ready is not None and self.g.is_contiguous():
            z, *states = self.ready
            return [z, in_blocks(self.g) if blocked else _line(self.g), *states]
        return None if blocked else views(self.tensors())

    def tensors(self) -> list[Tensor]:
        """`z`, `g` and state."""
        return [self.z, self.g, *self.state.values()]


@dataclass
class Segment:
    """Flat `z`, `g` and state with one set of coefficients; all in blocks where the rule has any.

    Args:
        sizes: how many elements of each parameter in it, in order.
        works: those parameters; none of a segment that only fills up.
        home: where what is a copy belongs, and the copy.
        copies: the same of what was filled up to whole blocks.
    """

    z: Tensor
    g: Tensor
    state: dict[str, Tensor]
    c: Coefficients
    sizes: list[int]
    works: list[Work] = field(default_factory=list)
    home: list[tuple[list[Tensor], list[Tensor]]] = field(default_factory=list)
    copies: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def finish(self) -> None:
        """Write back what could not be stepped in place."""
        for targets, values in self.home:
            torch._foreach_copy_(targets, values)
        for target, blocks in self.copies:
            target.copy_(blocks if blocks.shape == target.shape else out_of_blocks(blocks, target.shape))


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type of arithmetic and state for parameters of `dtype`: float64 for float64, float32 for all others."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def views(tensors: list[Tensor]) -> list[Tensor] | None:
    """Tensors of one shape, one-dimensional, in one common order of elements; None where their layouts ask for copies.

    They are detached: to be a parameter, and to require a gradient, is a part of what compiled code is compiled for.
    """
    if found := lines(tensors):
        return found
    order = sorted(range(tensors[0].ndim), key=tensors[0].stride, reverse=True)
    return lines([t.permute(order) for t in tensors])


def lines(tensors: list[Tensor]) -> list[Tensor] | None:
    """`views` of contiguous tensors; None where one of them is not."""
    return list(map(_line, tensors)) if all(map(Tensor.is_contiguous, tensors)) else None


def in_place(rule: Rule, tensors: list[Tensor]) -> list[Tensor] | None:
    """`z` and state of a parameter as a step of the rule takes them; None where it takes copies."""
    if not rule.is_blocked:
        return lines(tensors)
    shape = tensors[0].shape
    if not (fills_blocks(shape) and all(map(Tensor.is_contiguous, tensors))):
        return None
    return [in_blocks(tensor) if tensor.shape == shape else scales_in_blocks(tensor) for tensor in tensors]


def _line(tensor: Tensor) -> Tensor:
    plain = tensor.detach() if tensor.requires_grad else tensor
    return plain if plain.ndim == 1 else plain.view(-1)


def line_or_copy(tensor: Tensor) -> Tensor:
    """A tensor as a one-dimensional one: a view of it where it is contiguous, else a copy."""
    return _line(tensor if tensor.is_contiguous() else tensor.contiguous())


def alone(work: Work, blocked: bool = False) -> Segment:
    """One parameter by itself, in place or, where its tensors are laid out differently, on copies."""
    if blocked:
        return _in_blocks(work)
    in_place = work.views()
    z, g, *states = in_place or map(line_or_copy, work.tensors())
    segment = Segment(z, g, dict(zip(work.state, states)), work.c, [z.numel()], [work])
    for target, value in ((work.z, z), *zip(work.state.values(), states)):
        if not in_place and not target.is_contiguous():
            segment.home.append(([target], [value.view(target.shape)]))
    return segment


def _in_blocks(work: Work) -> Segment:
    shape = work.z.shape
    scales = {name for name, tensor in work.state.items() if tensor.shape != shape}
    state = {
        name: scales_in_blocks(tensor) if name in scales else in_blocks(tensor) for name, tensor in work.state.items()
    }
    segment = Segment(in_blocks(work.z), in_blocks(work.g), state, work.c, [work.z.numel()], [work])
    for name, target in (("z", work.z), *work.state.items()):
        value = segment.z if name == "z" else state[name]
        if name in scales:
            if not target.is_contiguous():
                segment.copies.append((target, value.view(target.shape)))
        elif not (fills_blocks(shape) and target.is_contiguous()):
            segment.copies.append((target, value))
    return segment


def _together(works: list[Work]) -> Segment:
    """Small contiguous parameters of one dtype and one set of coefficients, laid end to end."""
    columns = list(zip(*(map(_line, work.tensors()) for work in works)))
    z, g, *states = joined = [torch.cat(column) for column in columns]
    sizes = [part.numel() for part in columns[0]]
    home = [(list(column), list(whole.split(sizes))) for column, whole in zip(columns, joined) if whole is not g]
    return Segment(z, g, dict(zip(works[0].state, states)), works[0].c, sizes, works, home)


def segments(rule: Rule, works: list[Work]) -> Iterator[Segment]:
    """Cut a step of a rule into segments."""
    small: defaultdict[tuple[int, torch.dtype, torch.dtype, torch.device], list[Work]] = defaultdict(list)
    for work in works:
        if work.z.numel() == 0:
            continue
        if rule.is_blocked:
            yield alone(work, blocked=True)
        elif work.joins():
            small[id(work.c), work.z.dtype, work.g.dtype, work.z.device].append(work)
        else:
            yield alone(work)
    for same in small.values():
        for group in _groups(same):
            yield _together(group) if len(group) > 1 else alone(group[0])


def _groups(works: list[Work]) -> Iterator[list[Work]]:
    """The works in order, each group of at most `TOGETHER` elements."""
    group: list[Work] = []
    elements = 0
    for work in works:
        if group and elements + work.z.numel() > TOGETHER:
            yield group
            group, elements = [], 0
        group.append(work)
        elements += work.z.numel()
    yield group
