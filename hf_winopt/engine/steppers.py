"""How the programs of a rule step one parameter: by PyTorch's compiler at once, by loops of our own in blocks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..rules import BLOCK, OFF, Coefficients, Rule, dither, is_known, trust_ratio
from .layout import blocks_per_row
from .norms import total
from .passes import (
    Pass,
    from_ratio,
    is_returned,
    part_from_ratio,
    part_of_abs_sum,
    part_of_step,
    part_to_norms,
    to_ratio,
    whole_step,
    written,
)
from .programs import Kind, Program, Request, in_loops
from .work import Work, compute_dtype

Stepper = Callable[[list[Tensor]], object]
"""Steps one parameter, given its `z`, `g` and state, flat or in blocks."""


@dataclass(frozen=True)
class Group:
    """Those of one kind whose coefficients are the same."""

    rule: Rule
    c: Coefficients
    kind: Kind
    works: list[Work]

    @property
    def requests(self) -> list[Request]:
        """The programs that step them, in order."""
        rule, names = self.rule, tuple(_in_table(self.c))
        if in_loops(rule, self.kind):
            sums = [part_of_abs_sum] if rule.transform != "none" else []
            passes: list[Pass] = [*sums, *([part_to_norms, part_from_ratio] if rule.trust_ratio else [part_of_step])]
        else:
            passes = [to_ratio, from_ratio] if rule.trust_ratio else [whole_step]
        return [Request(one_pass, rule, names, self.kind) for one_pass in passes]


def stepper(group: Group, its: Sequence[Program]) -> Stepper:
    """What steps each of a group."""
    runs = [Call(request, program, group) for request, program in zip(group.requests, its)]
    return _in_blocks(group, runs) if in_loops(group.rule, group.kind) else _at_once(group, runs)


class Call:
    """A program with what is the same for all parameters; it copies home what the program returns of them."""

    def __init__(self, request: Request, program: Program, group: Group) -> None:
        self._program, self._table = program, table_of(_in_table(group.c), group.kind)
        self._given = [dither(group.c["phi"], group.kind[2])] if group.rule.dithers else []
        places = {"z": 0, **{name: 2 + i for i, name in enumerate(group.rule.kept)}}
        self._written = [places[name] for name in written(request.one_pass, group.rule)]

    def __call__(self, tensors: list[Tensor], *others: Tensor) -> Sequence[Tensor]:
        returned = self._program([self._table, *tensors, *self._given, *others])
        homes = [tensors[place] for place in sorted(self._written) if is_returned(tensors[place])]
        if homes:
            results = len(returned) - len(homes)
            torch._foreach_copy_(homes, list(returned[results:]))
            return returned[:results]
        return returned


def _at_once(group: Group, runs: Sequence[Call]) -> Stepper:
    if not group.rule.trust_ratio:
        (whole,) = runs
        return whole
    first, second = runs
    room = _room_for_direction(group.kind, max(map(_elements, group.works)))

    def two_passes(tensors: list[Tensor]) -> None:
        kept = room[: tensors[0].numel()].view(tensors[0].shape)
        (ratio,) = first(tensors, kept)
        second(tensors, kept, ratio)

    return two_passes


def _in_blocks(group: Group, runs: Sequence[Call]) -> Stepper:
    rule, dtype = group.rule, compute_dtype(group.kind[0])
    off, names = is_known(group.c.get("abs_sum", 1.0), OFF), ("z", "g", *rule.kept)

    def passes(tensors: list[Tensor]) -> None:
        parts, its = parts_of(names, tensors), list(runs)
        sums: list[Tensor] = []
        if rule.transform != "none":
            find = its.pop(0)
            nothing = torch.zeros((), dtype=dtype, device="cpu")
            sums = [nothing if off else total([find(part)[0] for part in parts]).to(dtype)]
        if rule.trust_ratio:
            find = its.pop(0)
            w, r = total([torch.stack(list(find(part, *sums))) for part in parts]).sqrt().unbind()
            sums = [trust_ratio(w, r).to(dtype), *sums]
        (move,) = its
        for part in parts:
            move(part, *sums)
        take_home(tensors, parts)

    return passes


def _whole_blocks(tensors: list[Tensor]) -> int:
    """How many elements of flat tensors are stepped where they are; a compiler that traces asks for two blocks."""
    whole = tensors[0].numel() // BLOCK * BLOCK
    return whole if whole >= 2 * BLOCK else 0


def parts_of(names: Sequence[str], tensors: list[Tensor]) -> list[list[Tensor]]:
    """A parameter in blocks; if it is flat, its whole blocks, and a copy of what is left, filled up.

    What fills up is 0, and 1 where a direction is divided by it: so it adds nothing to any sum.
    """
    if tensors[0].ndim == 2:
        return [tensors]
    whole = _whole_blocks(tensors)
    parts = [[tensor[:whole].view(-1, BLOCK) for tensor in tensors]] if whole else []
    if whole < tensors[0].numel():
        rest = [tensor.new_full((2 * BLOCK,), float(name == "exp_avg_sq")) for name, tensor in zip(names, tensors)]
        for copy, tensor in zip(rest, tensors):
            copy[: tensor.numel() - whole] = tensor[whole:]
        parts.append([copy.view(2, BLOCK) for copy in rest])
    return parts


def take_home(tensors: list[Tensor], parts: list[list[Tensor]]) -> None:
    """Write back what was stepped in a copy; of all but the gradient, which is the second."""
    whole = _whole_blocks(tensors)
    if tensors[0].ndim == 1 and whole < tensors[0].numel():
        for place, (tensor, copy) in enumerate(zip(tensors, parts[-1])):
            if place != 1:
                tensor[whole:] = copy.view(-1)[: tensor.numel() - whole]


def _in_table(c: Coefficients) -> Coefficients:
    """What a program is told in one tensor: all but the dither's phase, which comes as the dither of a block."""
    return {name: value for name, value in c.items() if name != "phi"}


def table_of(c: Coefficients, kind: Kind) -> Tensor:
    """The coefficients, in one tensor beside the parameters."""
    numbers = [0.0 if isinstance(value, Tensor) else value for value in c.values()]
    table = (
        torch.tensor(numbers, dtype=torch.float64, device="cpu")
        .to(compute_dtype(kind[0]))
        .to(kind[2], non_blocking=True)
    )
    for place, value in enumerate(c.values()):
        if isinstance(value, Tensor):  # on an accelerator, where reading it would wait
            table[place] = value
    return table


def _elements(work: Work) -> int:
    """Of a parameter, filled up to whole blocks."""
    shape = work.z.shape
    return work.z.numel() if len(shape) < 2 else shape[0] * blocks_per_row(shape) * BLOCK


_room: dict[tuple[torch.dtype, torch.device, int], Tensor] = {}


def _room_for_direction(kind: Kind, elements: int) -> Tensor:
    """Room for the direction of one parameter, each thread its own; as much as the largest has asked for.

    It stays from step to step: to be given fresh memory takes longer than to step it.
    """
    key = (compute_dtype(kind[0]), kind[2], threading.get_ident())
    if key not in _room or _room[key].numel() < elements:
        with torch.inference_mode(False):
            _room[key] = torch.zeros(elements, dtype=key[0], device=key[1])
    return _room[key]
