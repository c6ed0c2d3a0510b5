"""A kernel as the numbers that machine.c walks by: instructions, and the places of registers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .operations import HOLDS, NUMBERS, OPERATIONS
from .text import Kernel, Operand, Statement, Unreadable, parse

OPERANDS = 14
INSTRUCTION = np.dtype(
    [
        *((name, np.int32) for name in ("operation", "guard", "negated", "results", "operands", "holds")),
        ("operand", np.int32, OPERANDS),
        *((name, np.int32) for name in ("width", "count")),
        ("number", np.int64),
    ],
    align=True,
)

FILLED = ("%ctaid.x", "%ctaid.y", "%ctaid.z", "%tid.x", "%laneid")
"""The registers that `launch` in machine.c fills, in this order."""

OF_A_LAUNCH = ("%nctaid.x", "%nctaid.y", "%nctaid.z")
OF_A_LINE = {"%tid.y": 0, "%tid.z": 0, "%ntid.y": 1, "%ntid.z": 1}
"""The threads of a block of Triton's are in a line."""

ADDRESS = re.compile(r"\[\s*([%\w$.]+)\s*(?:\+\s*(-?\w+))?\s*\]")
ACCESS = re.compile(r"(ld|st)\.(global|shared)((?:\.[\w:]+)*?)(?:\.v([248]))?\.[buf](8|16|32|64)")
HINTS = {"", "ca", "cg", "cs", "wb", "wt", "nc", "L1::evict_first", "L1::evict_last", "L1::no_allocate"}
"""Modifiers that say how long something shall stay in which cache."""

SHARED = "global_smem"
"""Triton's name for the shared memory of a block, which begins at 0."""


@dataclass
class Step:
    """An instruction, as in machine.c, whose operands have no places yet: names, or numbers that stand in the text."""

    operation: str
    operands: list[str | int]
    results: int = 0
    width: int = 0
    count: int = 0
    number: int = 0


class Program:
    """A kernel that can be launched.

    Args:
        text: its PTX.
        shared: bytes of shared memory that a block has.

    Raises:
        Unreadable: an instruction or an operand is not known; which, and where, is said.
    """

    def __init__(self, text: str, shared: int = 0) -> None:
        self.kernel: Kernel = parse(text)
        self.shared = shared
        steps = [self._step(statement) for statement in self.kernel.statements]
        guards = [statement.guard for statement in self.kernel.statements]
        used = dict.fromkeys([*(operand for step in steps for operand in step.operands), *filter(None, guards)])
        fixed = [*FILLED, *OF_A_LAUNCH, *self.kernel.parameters]
        self.literals = [each for each in used if isinstance(each, int)]
        self.variable = len(fixed) + len(self.literals)  # from here on registers change
        order = dict.fromkeys([*fixed, *self.literals, *used])
        places = {name: place for place, name in enumerate(order)}
        self.count = len(places)
        rows = [_row(step, statement, places) for step, statement in zip(steps, self.kernel.statements)]
        self.code = np.array(rows, INSTRUCTION)

    def _step(self, statement: Statement) -> Step:
        try:
            return self._read(statement)
        except Unreadable as error:
            where = f"{self.kernel.name}, line {statement.line} ({statement.place or 'of no line of Python'})"
            raise Unreadable(f"{where}: {statement.opcode}: {error}") from None

    def _read(self, statement: Statement) -> Step:
        opcode, operands = statement.opcode, statement.operands
        if access := ACCESS.fullmatch(opcode):
            return self._access(operands, *access.groups())
        if opcode.startswith("ld.param."):
            result, address = operands
            base, offset = self._address(address)
            if offset or base not in self.kernel.parameters:
                raise Unreadable(f"{address} is no parameter")
            return Step(f"mov.b{re.sub('[a-z.]', '', opcode)}", [self._name(result), base], 1)
        if opcode in ("bra", "bra.uni"):
            if operands[0] not in self.kernel.labels:
                raise Unreadable(f"there is no label {operands[0]}")
            return Step(opcode, [], number=self.kernel.labels[operands[0]])
        if opcode == "bar.sync":
            if operands != ("0",):
                raise Unreadable("only barrier 0 is known, of all threads of a block")
            return Step(opcode, [])
        return self._computes(opcode, operands)

    def _computes(self, opcode: str, operands: tuple[Operand, ...]) -> Step:
        name = opcode
        for word, operand in zip(("to", "from"), operands):
            if isinstance(operand, tuple):
                name += f" {word} {len(operand)}"
        operation = OPERATIONS.get(name)
        if operation is None:
            raise Unreadable("this instruction is not known")
        names = [self._name(each) for operand in operands for each in _parts(operand)]
        results = len(operation.results)
        if len(names) != results + len(operation.sources):
            raise Unreadable(f"takes {results + len(operation.sources)} operands, not {len(names)}")
        return Step(name, names, results)

    def _access(
        self, operands: tuple[Operand, ...], way: str, space: str, hints: str, count: str | None, bits: str
    ) -> Step:
        """A load has its results first, then an address; a store its address first."""
        if unknown := set(hints.removeprefix(".").split(".")) - HINTS:
            raise Unreadable(f"{', '.join(unknown)} is not known")
        if len(operands) != 2:
            raise Unreadable(f"takes 2 operands, not {len(operands)}")
        values, address = operands if way == "ld" else reversed(operands)
        names = [self._name(each) for each in _parts(values)]
        if len(names) != int(count or 1):
            raise Unreadable(f"takes {count or 1} registers, not {len(names)}")
        base, offset = self._address(address)
        access = {"width": int(bits) // 8, "count": len(names), "number": offset}
        if way == "ld":
            return Step(f"ld.{space}", [*names, base], len(names), **access)
        return Step(f"st.{space}", [base, *names], **access)

    def _address(self, text: Operand) -> tuple[str | int, int]:
        match = ADDRESS.fullmatch(text) if isinstance(text, str) else None
        if not match:
            raise Unreadable(f"{text} is no address")
        base = match[1]
        return base if base in self.kernel.parameters else self._name(base), int(match[2] or "0", 0)

    def _name(self, text: str) -> str | int:
        """A register, or the bits of a number."""
        if text == "%ntid.x":
            return self.kernel.threads
        if text.startswith("%") or text == "_" or text in self.kernel.named:
            return OF_A_LINE.get(text, text)
        if text == SHARED:
            return 0
        if text[:2] in ("0f", "0d"):
            return int(text[2:], 16)
        try:
            return int(text.removesuffix("U"), 0) % (1 << 64)
        except ValueError:
            raise Unreadable(f"{text} is not known") from None


def _parts(operand: Operand) -> tuple[str, ...]:
    return operand if isinstance(operand, tuple) else (operand,)


def _row(step: Step, statement: Statement, places: Mapping[str | int, int]) -> tuple[Any, ...]:
    """An instruction with its operands in their places."""
    guard = -1 if statement.guard is None else places[statement.guard]
    operands = [places[operand] for operand in step.operands]
    filled = operands + [0] * (OPERANDS - len(operands))
    numbers = (NUMBERS[step.operation], guard, statement.negated, step.results, len(operands))
    holds = HOLDS.index(OPERATIONS[step.operation].holds)
    return (*numbers, holds, filled, step.width, step.count, step.number)
