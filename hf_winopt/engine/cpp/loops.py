"""A pass over blocks of 128 elements, written in C++: each block is read once, stepped in the nearest cache, stored.

It is made of the operations that `torch.export` finds in a pass, so the formulas stand in `rules` alone. (torch.compile
makes a loop over everything of each maximum of a block, and what lies between two of them goes through memory.)

A block is walked once up to its maxima and once more with them; what the second walk needs of the first waits in the
nearest cache. The vectors are those of `vectors.h`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, ClassVar

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from ...rules import BLOCK
from .operations import COMPARISONS, EXPRESSIONS, FRAME, TYPES, operands, rough_roots

aten = torch.ops.aten

CHUNK = 256
"""Blocks that a thread takes at a time, and that one sum is taken of."""


class Width(IntEnum):
    """How many of a value there are."""

    ONE = 0
    EACH_BLOCK = 1
    EACH_ELEMENT = 2


@dataclass(frozen=True)
class _Place:
    """Where a value is known: in which walk over a block, and from then on."""

    width: Width
    walk: int = 0


@dataclass
class _Walk:
    before: list[str] = field(default_factory=list)
    inside: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)


def source(program: ExportedProgram) -> str:
    """The C++ of a pass.

    It defines `run(tensors, sums, blocks, threads)`, which steps `blocks` blocks in place, and `results`, the number of
    sums that it finds: one of each for every `CHUNK` blocks, one after the other.

    Args:
        program: a pass over tensors in blocks; none of its operations writes but for its last copies.

    Raises:
        NotImplementedError: an operation that this file does not know.
    """
    return _Writer(program).text()


def _width(value: torch.Tensor) -> Width:
    if value.ndim and value.shape[-1] == BLOCK:
        return Width.EACH_ELEMENT
    return Width.EACH_BLOCK if value.ndim == 2 else Width.ONE


class _Writer:
    """Goes through the operations once, in order."""

    def __init__(self, program: ExportedProgram) -> None:
        self._place: dict[Node, _Place] = {}
        self._masks: dict[Node, tuple[str, tuple[Any, ...]]] = {}
        self._numbers: dict[Node, tuple[int, int]] = {}  # of the table: its place, and how far in
        self._waiting: dict[Node, None] = {}
        self._walks = [_Walk()]
        self._once: list[str] = []
        self._sums: list[Node] = []
        self._rough = dict(rough_roots(program.graph.nodes))
        self._inputs = [node for node in program.graph.nodes if node.op == "placeholder"]
        for node in program.graph.nodes:
            if node.op == "placeholder":
                self._read(node)
            elif node.op == "call_function":
                self._known.get(node.target, _Writer._compute)(self, node)
            else:
                self._returns(list(operands(node)[0]))

    # names ---------------------------------------------------------------------------------------------------------

    def _value(self, value: Any, place: _Place) -> str:
        """How a value is written where it is used."""
        if isinstance(value, (int, float)):
            number = repr(torch.tensor(value, dtype=torch.float32).item())
            return {"inf": "V(INFINITY)"}.get(number, f"V({number}f)")
        if value in self._masks:
            comparison, operands = self._masks[value]
            return comparison.format(*(self._value(operand, place) for operand in operands))
        known = self._place[value]
        if known.width is Width.EACH_ELEMENT and place.walk > known.walk:
            self._waiting[value] = None
            return f"{value.name}_waits[j]"
        return f"{value.name}_"

    def _place_of(self, node: Node) -> _Place:
        places = [self._place[each] for each in node.all_input_nodes]
        return _Place(max(place.width for place in places), max(place.walk for place in places))

    def _walk(self, place: _Place) -> _Walk:
        while len(self._walks) <= place.walk:
            self._walks.append(_Walk())
        return self._walks[place.walk]

    def _lines(self, place: _Place) -> list[str]:
        if place.width is Width.ONE:
            return self._once
        walk = self._walk(place)
        return walk.before if place.width is Width.EACH_BLOCK else walk.inside

    def _define(self, node: Node, place: _Place, expression: str) -> None:
        self._place[node] = place
        self._lines(place).append(f"const V {node.name}_ = {expression};")

    # one operation each --------------------------------------------------------------------------------------------

    def _read(self, node: Node) -> None:
        value, index = node.meta["val"], self._inputs.index(node)
        width = _width(value)
        if width is Width.EACH_ELEMENT:
            block = "BLOCK * b + " if value.ndim == 2 else ""
            self._define(node, _Place(width), f"read(t{index} + {block}WIDTH * j)")
        elif width is Width.EACH_BLOCK:
            self._define(node, _Place(width), f"V(t{index}[b])")
        elif value.ndim == 0:
            self._define(node, _Place(width), f"V(*t{index})")
        else:
            self._numbers[node] = (index, 0)

    def _slice(self, node: Node) -> None:
        index, first = self._numbers[operands(node)[0]]
        self._numbers[node] = (index, first + operands(node)[2])

    def _number(self, node: Node) -> None:
        index, first = self._numbers[operands(node)[0]]
        self._define(node, _Place(Width.ONE), f"V(t{index}[{first}])")

    def _constant(self, node: Node) -> None:
        self._define(node, _Place(Width.ONE), self._value(operands(node)[0], _Place(Width.ONE)))

    def _compare(self, node: Node) -> None:
        """Masks are written where they are used: they do not wait."""
        self._place[node] = self._place_of(node)
        self._masks[node] = (COMPARISONS[node.target], operands(node))

    def _square_root(self, node: Node) -> None:
        of, times = self._rough.get(node, (operands(node)[0], 1))
        if times:
            place = self._place[of]
            value = self._value(of, place)
            self._define(node, place, f"{value}.sqrt()" if times == 1 else f"about_root<{times}>({value})")

    def _clamp(self, node: Node) -> None:
        place = self._place_of(node)
        limits = {**dict(zip(("min", "max"), operands(node)[1:])), **node.kwargs}
        text = self._value(operands(node)[0], place)
        for name, function in (("min", "at_least"), ("max", "at_most")):
            if limits.get(name) is not None:
                text = f"{function}({text}, {self._value(limits[name], place)})"
        self._define(node, place, text)

    def _convert(self, node: Node) -> None:
        (given,), to = operands(node), node.meta["val"].dtype
        if to not in TYPES:
            raise self._unknown(node)
        place, value = self._place_of(node), self._value(given, self._place_of(node))
        if given in self._masks:
            value = f"one_where({value})"
        elif to.itemsize == 2 and any(user.target not in (aten.copy.default, "output") for user in node.users):
            value = f"rounded<{TYPES[to]}>({value})"
        self._define(node, place, value)

    def _maximum(self, node: Node) -> None:
        (values, *_), place = operands(node), self._place_of(node)
        if values.target not in (aten.abs.default, aten.clamp.default) or operands(node)[1:] != ([-1], True):
            raise self._unknown(node)  # of numbers that may be negative, or not of a block
        walk = self._walk(place)
        walk.before.append(f"V {node.name}_ = V(0);")
        walk.inside.append(f"{node.name}_ = larger({node.name}_, {self._value(values, place)});")
        walk.after.append(f"{node.name}_ = largest_of({node.name}_);")
        self._place[node] = _Place(Width.EACH_BLOCK, place.walk + 1)

    def _sum(self, node: Node) -> None:
        if operands(node)[1] or node.meta["val"].dtype != torch.float64:
            raise self._unknown(node)
        place, walk = self._place_of(node), self._walk(self._place_of(node))
        walk.before.append(f"V {node.name}_ = V(0);")
        walk.inside.append(f"{node.name}_ = {node.name}_ + {self._value(operands(node)[0], place)};")
        walk.after.append(f"found[{len(self._sums)}] += sum_of({node.name}_);")
        self._sums.append(node)

    def _copy(self, node: Node) -> None:
        home, value = operands(node)
        place = self._place[value]
        if home not in self._inputs:  # a value that took another's room
            self._define(node, place, self._value(value, place))
            return
        index = self._inputs.index(home)
        text = self._value(value, place)
        if place.width is Width.EACH_ELEMENT:
            self._walk(place).inside.append(f"write(t{index} + BLOCK * b + WIDTH * j, {text});")
        else:
            self._walk(place).before.append(f"t{index}[b] = first_of({text});")

    def _compute(self, node: Node) -> None:
        if node.target not in EXPRESSIONS or node.kwargs:
            raise self._unknown(node)
        place = self._place_of(node)
        values = (self._value(operand, place) for operand in operands(node))
        self._define(node, place, EXPRESSIONS[node.target].format(*values))

    def _power(self, node: Node) -> None:
        base, exponent = operands(node)
        if exponent != 2:
            raise self._unknown(node)
        place = self._place_of(node)
        self._define(node, place, "{0} * {0}".format(self._value(base, place)))

    def _unknown(self, node: Node) -> NotImplementedError:
        return NotImplementedError(f"{node.format_node()} as a loop over blocks")

    def _nothing(self, node: Node) -> None:
        pass

    def _returns(self, results: list[Node]) -> None:
        returned = [node for node in results if node.target is not aten.copy.default]
        if returned != self._sums:
            raise NotImplementedError(f"a pass over blocks that returns {returned}, and not its sums {self._sums}")

    _known: ClassVar[dict[Any, Callable[[_Writer, Node], None]]] = {
        aten.slice.Tensor: _slice,
        aten.squeeze.dims: _number,
        aten.scalar_tensor.default: _constant,
        aten.sqrt.default: _square_root,
        aten.clamp.default: _clamp,
        aten.clamp.Tensor: _clamp,
        aten.pow.Tensor_Scalar: _power,
        aten._to_copy.default: _convert,
        aten.amax.default: _maximum,
        aten.sum.dim_IntList: _sum,
        aten.copy.default: _copy,
        aten._assert_tensor_metadata.default: _nothing,
        aten.sym_size.int: _nothing,
        **dict.fromkeys(COMPARISONS, _compare),
    }

    # the whole -----------------------------------------------------------------------------------------------------

    def text(self) -> str:
        types = [TYPES[node.meta["val"].dtype] for node in self._inputs]
        tensors = [f"{kind}* const t{i} = static_cast<{kind}*>(tensors[{i}]);" for i, kind in enumerate(types)]
        waiting = [f"V {node.name}_waits[VECTORS];" for node in self._waiting]
        walks = [line for walk in self._walks for line in self._loop(walk)]
        return FRAME.format(
            elements=BLOCK,
            chunk=CHUNK,
            results=len(self._sums),
            once="\n  ".join([*tensors, *self._once]),
            block="\n      ".join([*waiting, *walks]),
        )

    def _loop(self, walk: _Walk) -> list[str]:
        keep = {f"const V {node.name}_ = ": f"{node.name}_waits[j] = {node.name}_;" for node in self._waiting}
        inside = []
        for line in walk.inside:
            inside += [line, *(kept for start, kept in keep.items() if line.startswith(start))]
        loop = ["#pragma GCC unroll 8", "for (int j = 0; j < VECTORS; ++j) {", *(f"  {line}" for line in inside), "}"]
        return [*walk.before, *(loop if inside else []), *walk.after]
