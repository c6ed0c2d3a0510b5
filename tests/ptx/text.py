"""PTX, a text, taken apart: a kernel's parameters, its statements, and the lines of Python that they come from."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePath

WARP = 32

Operand = str | tuple[str, ...]
"""A register, a number, a label, or an address in brackets; where there are braces, the names within."""

ENTRY = re.compile(r"\.entry\s+([\w$]+)")
PARAMETER = re.compile(r"\.param\s+\.[a-z](\d+).*?([\w$]+),?$")
THREADS = re.compile(r"\.(?:reqntid|maxntid)\s+(\d+)(?:\s*,\s*1)*$")
FILE = re.compile(r'^\s*\.file\s+(\d+)\s+(?:".*"\s+)?"([^"]*)"', re.MULTILINE)
LOCATION = re.compile(r"\.loc\s+(\d+)\s+(\d+)\s+\d+(?:.*inlined_at\s+(\d+)\s+(\d+))?")
LABEL = re.compile(r"([\w$]+):$")
NAMED = re.compile(r"\.reg\s+\.\w+\s+([a-z]\w*)$")
STATEMENT = re.compile(r"(?:@(!?)(%[\w$]+)\s+)?([a-z][\w.:]*)\s*(.*)")
OPERAND = re.compile(r"\{[^}]*\}|\[[^\]]*\]|[^,\s][^,]*")


class Unreadable(ValueError):
    """Not the PTX that Triton makes, or something in it that is not known here."""


@dataclass(frozen=True)
class Statement:
    """One instruction.

    Args:
        opcode: with all of its modifiers.
        guard, negated: the predicate that it depends on, None where there is none, and whether that is negated.
        line: in the text, counted from 1.
        place: the lines of Python that it comes from, the innermost first.
    """

    opcode: str
    operands: tuple[Operand, ...]
    guard: str | None
    negated: bool
    line: int
    place: str

    def __str__(self) -> str:
        guard = f"@{'!' * self.negated}{self.guard} " if self.guard else ""
        operands = (each if isinstance(each, str) else f"{{{', '.join(each)}}}" for each in self.operands)
        return f"{guard}{self.opcode} {', '.join(operands)}".rstrip()


@dataclass
class Kernel:
    """One kernel.

    Args:
        parameters: how many bytes each has, in order.
        threads: of a block.
        labels: the number of the statement that each stands before.
        named: registers that are called otherwise than by a percent sign.
    """

    name: str
    parameters: dict[str, int] = field(default_factory=dict)
    threads: int = 0
    statements: list[Statement] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    named: set[str] = field(default_factory=set)


def parse(text: str) -> Kernel:
    """The kernel of a text.

    Raises:
        Unreadable: there are none or several, or one of other blocks than whole warps in a line, or a statement that
            does not look like one.
    """
    entries = list(ENTRY.finditer(text))
    if len(entries) != 1:
        raise Unreadable(f"expected one kernel, found {len(entries)}")
    kernel = Kernel(entries[0][1])
    files = {number: PurePath(path).name for number, path in FILE.findall(text)}
    begin = entries[0].end()
    depth, place, in_assembly = 0, "", False
    for number, raw in enumerate(text[begin:].split("\n"), text.count("\n", 0, begin) + 1):
        if "inline asm" in raw:
            in_assembly = "begin" in raw  # the lines of which are counted on as if they were Python's
        line = raw.partition("//")[0].strip()
        if not line:
            continue
        if location := LOCATION.match(line):
            place = place if in_assembly else _place(files, location) or place
        elif depth == 0 and (found := PARAMETER.match(line)):
            kernel.parameters[found[2]] = int(found[1]) // 8
        elif depth == 0 and (found := THREADS.match(line)):
            kernel.threads = int(found[1])
        elif found := LABEL.match(line):
            kernel.labels[found[1]] = len(kernel.statements)
        else:
            before, depth = depth, _read(kernel, line, depth, number, place)
            if before and not depth:
                break
    if not 0 < kernel.threads <= 1024 or kernel.threads % WARP:
        raise Unreadable(f"{kernel.name}: blocks of {kernel.threads} threads")
    return kernel


def _read(kernel: Kernel, line: str, depth: int, number: int, place: str) -> int:
    """Add what stands on one line, and say how many braces are open after it."""
    for part in line.split(";"):
        bare = part.lstrip("{} \t")  # no statement begins with a brace
        scopes = part[: len(part) - len(bare)]
        depth += scopes.count("{") - scopes.count("}")
        if depth and (named := NAMED.match(bare)):
            kernel.named.add(named[1])
        elif depth and bare and not bare.startswith("."):
            kernel.statements.append(_statement(bare.strip(), number, place))
    return depth


def _place(files: dict[str, str], location: re.Match[str]) -> str:
    """Nothing for line 0, which stands for no line."""
    file, line, outer_file, outer_line = location.groups()
    if line == "0":
        return ""
    inner = f"{files.get(file, '?')}:{line}"
    return f"{inner}, in {files.get(outer_file, '?')}:{outer_line}" if outer_file else inner


def _statement(text: str, line: int, place: str) -> Statement:
    match = STATEMENT.fullmatch(text)
    if not match:
        raise Unreadable(f"line {line}: {text!r}")
    negated, guard, opcode, rest = match.groups()
    operands = (operand.strip() for operand in OPERAND.findall(rest))
    split = (tuple(map(str.strip, each[1:-1].split(","))) if each.startswith("{") else each for each in operands)
    return Statement(opcode, tuple(split), guard, bool(negated), line, place)
