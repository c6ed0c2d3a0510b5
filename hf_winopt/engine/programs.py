"""A pass over a parameter as machine code, the same for every size, learning rate and number of threads.

On a CPU it is compiled ahead of time and kept on disk: a later process loads it in milliseconds, and a call costs a few
microseconds where one of `torch.compile` costs a hundred. Elsewhere it is `torch.compile`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import rules
from ..rules import Rule
from . import disk, passes
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

_one_at_a_time = threading.Lock()


@functools.cache
def program(one_pass: Pass, rule: Rule, names: tuple[str, ...], kind: Kind) -> Program:
    """`one_pass` compiled for a rule, the names of its coefficients, and a kind of tensors.

    Raises:
        RuntimeError: it could not be compiled.
    """
    run = _Run(one_pass, rule, names)
    if kind[2].type != "cpu":
        return just_in_time(run)
    with _one_at_a_time:
        return _ahead_of_time(run, kind)


class _Run(torch.nn.Module):
    """A pass as the compiler wants it: a module whose only argument is a list of tensors."""

    def __init__(self, one_pass: Pass, rule: Rule, names: tuple[str, ...]) -> None:
        super().__init__()
        self.one_pass, self.rule, self.names, self.state_names = one_pass, rule, names, rule.state_names

    def forward(self, tensors: list[Tensor]) -> list[Tensor]:
        table, z, g, *rest = tensors
        state = dict(zip(self.state_names, rest))
        dtype = compute_dtype(z.dtype)
        c: rules.Coefficients = dict(zip(self.names, table.unbind()))
        return self.one_pass(self.rule, c, z, z.to(dtype), g.to(dtype), state, *rest[len(state) :])

    def examples(self, kind: Kind) -> list[Tensor]:
        """Tensors such as it will be called with."""
        z_dtype, g_dtype, device = kind
        wide = functools.partial(torch.ones, dtype=compute_dtype(z_dtype), device=device)
        z, g = (torch.ones(EXAMPLE, dtype=dtype, device=device) for dtype in (z_dtype, g_dtype))
        others = [wide(()) if size is None else wide(size) for size in OTHERS[self.one_pass]]
        return [wide(len(self.names)), z, g, *(wide(EXAMPLE) for _ in self.state_names), *others]

    def options(self) -> dict[str, Any]:
        """For the compiler: else it reads and computes the moments twice, once to store them, once for `||r||`."""
        return {"realize_opcount_threshold": 0} if self.one_pass is passes.to_ratio else {}


def just_in_time(run: _Run) -> Program:
    """The program that `torch.compile` makes in this process."""

    def call(tensors: list[Tensor]) -> list[Tensor]:
        return run(tensors)

    call.__code__ = call.__code__.replace(co_name=f"call_{id(run)}")  # torch counts compilations per code object
    return torch.compile(call, dynamic=True, fullgraph=True, options=run.options() or None)


def _ahead_of_time(run: _Run, kind: Kind) -> Program:
    name, make = file_name(run, kind), functools.partial(_compile, run, kind)
    path = disk.kept(name, make)
    try:
        return _load(path)
    except RuntimeError:  # what was kept is damaged
        path.unlink(missing_ok=True)
        return _load(disk.kept(name, make))


def file_name(run: _Run, kind: Kind) -> str:
    """What a program is kept under: it says all that it was compiled for and of."""
    asked = (run.rule, run.names, kind, torch.__version__, disk.processor(), _sources())
    return f"{run.one_pass.__name__}_{hashlib.sha256(repr(asked).encode()).hexdigest()[:32]}.pt2"


def _load(path: Path) -> Program:
    run: Program = torch._inductor.aoti_load_package(str(path)).loader.run
    return run


def exported(run: _Run, kind: Kind) -> torch.export.ExportedProgram:
    """What is compiled: the operations of a pass, for parameters of any size but 1."""
    examples = run.examples(kind)
    size = torch.export.Dim("size", min=2)
    shapes = [{0: size} if tensor.numel() == EXAMPLE else None for tensor in examples]
    # a step may be taken under any of these, and what is compiled serves every later one
    with torch.inference_mode(False), torch.no_grad(), torch.autocast("cpu", enabled=False):
        return torch.export.export(run, (examples,), dynamic_shapes=(shapes,))


@functools.cache
def _ask_ahead() -> None:
    """Find out beside the tracing which vector instructions work here, which torch asks processes of their own.

    The answer stays in a cache of torch's own, where it looks for it. Should that move, only the time is lost.
    """

    def ask() -> None:
        with contextlib.suppress(Exception):
            from torch._inductor import cpu_vec_isa

            cpu_vec_isa.valid_vec_isa_list()

    threading.Thread(target=ask, daemon=True).start()


_made = itertools.count()
"""How many programs this process has compiled."""


def _headers() -> dict[str, Any]:
    """Newer torch compiles headers ahead, which takes as long as two programs; most steps need no more than those."""
    from torch._inductor import config

    name = "precompile_headers"
    return {f"aot_inductor.{name}": next(_made) >= 2} if hasattr(config.aot_inductor, name) else {}


def _compile(run: _Run, kind: Kind, path: Path) -> None:
    _ask_ahead()
    options = {"cpp.dynamic_threads": True, **_headers(), **run.options()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch's, of itself
            torch._inductor.aoti_compile_and_package(
                exported(run, kind), package_path=str(path), inductor_configs=options
            )
    except Exception as error:
        raise RuntimeError(
            f"backend='compile' could not compile a step: {error}\nIt needs a C++ compiler (g++, or the one that CXX "
            "names); backend='eager' needs none"
        ) from error


@functools.cache
def _sources() -> str:
    """What the programs are made of, as a number: other formulas are other programs."""
    files = [*sorted(Path(rules.__file__).parent.glob("*.py")), Path(passes.__file__), Path(__file__)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
