"""machine.c, compiled once by the C compiler that Triton needs too, and the launches of programs on it."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from . import operations
from .live import RANGE, Live
from .program import FILLED, Program
from .text import Statement

HERE = Path(__file__).parent
FLAGS = ("-O2", "-std=gnu11", "-ffp-contract=off", "-fno-strict-aliasing", "-fwrapv", "-shared", "-fPIC")

HISTORY = np.dtype((np.void, 20))
"""`history` in machine.c: what is remembered of a byte of memory."""

Block = tuple[int, int, int]


class Fault(Exception):
    """Something that a GPU would not do as it is meant, or not always.

    Args:
        why: what is wrong.
        kernel, statement: where.
        block, thread: who.
        memory: which, for what is about memory.
    """

    def __init__(self, why: str, kernel: str, statement: Statement, block: Block, thread: int, memory: str) -> None:
        self.why, self.statement, self.block, self.thread = why, statement, block, thread
        where = f"{kernel}, {statement.place or 'no line of Python'}, line {statement.line} of the PTX: {statement}"
        super().__init__(f"thread {thread} of block {block} {why}\n{where}\n{memory}".rstrip())


class _Memory(ctypes.Structure):
    _fields_ = (
        ("ranges", ctypes.c_void_p),
        ("count", ctypes.c_int64),
        ("histories", ctypes.c_void_p),
        ("base", ctypes.c_void_p),
        ("of_a_block", ctypes.c_int64),
    )


class _Machine(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_void_p),
        ("length", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("registers", "held", "on")),
        *((name, ctypes.c_int32) for name in ("threads", "count")),
        *((name, _Memory) for name in ("global", "shared")),
        ("next", ctypes.c_int64),
        *((name, ctypes.c_uint32) for name in ("launched", "born", "moment")),
        *((name, ctypes.c_int64) for name in ("at", "block", "thread")),
        ("address", ctypes.c_uint64),
    )


def folder() -> Path:
    """Where what is compiled is kept; the tests of one run have it in common."""
    path = Path(os.environ.get("HF_WINOPT_CACHE") or Path.home() / ".cache" / "hf_winopt") / "ptx"
    path.mkdir(parents=True, exist_ok=True)
    return path


def compiler() -> str | None:
    """The C compiler; None where there is none."""
    return os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")


@functools.cache
def library() -> ctypes.CDLL:
    """The machine, as it was compiled when its source was last met."""
    written = [path.read_text() for path in sorted((*HERE.glob("*.h"), HERE / "machine.c"))]
    made_from = (operations.source(), *written, str(compiler()), *FLAGS)
    path = folder() / f"machine_{hashlib.sha256(repr(made_from).encode()).hexdigest()[:16]}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder()) as aside:
            (Path(aside) / "operations.inc").write_text(made_from[0])
            made = Path(aside) / path.name
            source = ["-I", aside, str(HERE / "machine.c"), "-o", str(made), "-lm"]
            subprocess.run([*str(compiler()).split(), *FLAGS, *source], check=True)
            made.replace(path)
    found = ctypes.CDLL(str(path))
    found.launch.restype = ctypes.c_char_p
    found.launch.argtypes = (
        ctypes.POINTER(_Machine), ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p, ctypes.c_int64,
    )  # fmt: skip
    return found


class Machine:
    """Launches one program after another."""

    def __init__(self) -> None:
        self._moment = 0
        self._histories = {kind: np.zeros(0, HISTORY) for kind in ("global", "shared")}

    def launch(
        self, program: Program, arguments: Sequence[int], live: Live, blocks: Sequence[Block], grid: Block
    ) -> None:
        """Run blocks, each to its end.

        Args:
            arguments: the bits of the parameters.
            live: the tensors that may be touched.
            blocks: which, in which order.
            grid: how many there are in each direction.

        Raises:
            Fault: what a GPU would not do as it is meant, or not always. The launch ends there.
        """
        threads = program.kernel.threads
        numbers = np.array([0] * len(FILLED) + [*grid, *arguments, *program.literals], np.uint64)
        if len(numbers) != program.variable:
            raise ValueError(f"{program.kernel.name} takes {len(program.kernel.parameters)}, not {len(arguments)}")
        registers = np.empty(program.count * threads, np.uint64)
        held, on = np.empty(program.count, np.uint8), np.empty(threads, np.uint8)
        shared, of_shared = np.empty(program.shared, np.uint8), np.array([(0, program.shared, 0)], RANGE)
        order = np.array(blocks, np.int32)
        machine = _Machine(
            program.code.ctypes.data, len(program.code), registers.ctypes.data, held.ctypes.data, on.ctypes.data,
            threads, program.count,
            _Memory(live.ranges.ctypes.data, len(live.ranges), self._remembered("global", live.bytes), None, 0),
            _Memory(of_shared.ctypes.data, 1, self._remembered("shared", program.shared), shared.ctypes.data, 1),
            moment=self._moment,
        )  # fmt: skip
        values = (numbers.ctypes.data, program.variable, order.ctypes.data, len(order))
        why = library().launch(ctypes.byref(machine), *values)
        self._moment = machine.moment
        if why:
            statement = program.kernel.statements[machine.at]
            memory = _where(statement, machine.address, live, program)
            raise Fault(why.decode(), program.kernel.name, statement, blocks[machine.block], machine.thread, memory)

    def _remembered(self, kind: str, size: int) -> int:
        """The address of the histories of so many bytes. What stands there is older than any launch to come."""
        if len(self._histories[kind]) < size:
            self._histories[kind] = np.zeros(size, HISTORY)
        return self._histories[kind].ctypes.data


def _where(statement: Statement, address: int, live: Live, program: Program) -> str:
    if ".global" in statement.opcode:
        return f"address {address:#x}, {live.describe(address)}"
    if ".shared" in statement.opcode:
        return f"byte {address} of {program.shared} of shared memory"
    return ""
