"""A pass over a parameter as machine code, the same for every size, learning rate and number of threads.

It is compiled ahead of time, for a CPU, and kept on disk: a later process loads it in milliseconds, and a call costs a
few microseconds where one of `torch.compile` costs a hundred. PyTorch's compiler makes it, or the loops of `cpp`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from .. import rules
from . import disk, layout, norms, passes, programs, work
from .cpp import library, loops, operations
from .programs import EXAMPLE, EXAMPLE_BLOCKS, Program, Request, Run


def ahead_of_time(request: Request) -> Program:
    """The program, compiled where it is not on disk.

    Raises:
        RuntimeError: it could not be compiled.
    """
    path = compiled(request)
    load = library.Library if request.in_loops else _load
    try:
        return load(path)
    except RuntimeError:  # what was kept is damaged
        path.unlink(missing_ok=True)
        return load(compiled(request))


def compiled(request: Request) -> Path:
    """The file of a program, which is there then."""
    return disk.kept(file_name(request), functools.partial(_compile, request))


def file_name(request: Request) -> str:
    """What a program is kept under: it says all that it was compiled for and of."""
    asked = (*request[1:], torch.__version__, disk.processor(), _sources())
    kind = "so" if request.in_loops else "pt2"
    return f"{request.one_pass.__name__}_{hashlib.sha256(repr(asked).encode()).hexdigest()[:32]}.{kind}"


def _load(path: Path) -> Program:
    run: Program = torch._inductor.aoti_load_package(str(path)).loader.run
    return run


def exported(request: Request) -> torch.export.ExportedProgram:
    """What is compiled: the operations of a pass, for parameters of any size but 1."""
    run = Run(request)
    examples = run.examples()
    size = torch.export.Dim("size", min=2)
    whole = (EXAMPLE, EXAMPLE_BLOCKS)
    shapes = [{0: size} if tensor.ndim and tensor.shape[0] in whole else None for tensor in examples]
    with _undisturbed():
        return torch.export.export(run, (examples,), dynamic_shapes=(shapes,), strict=False)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """A step may be taken under any of these, or the opposite, and what is compiled serves every later one."""
    with torch.inference_mode(False), torch.no_grad(), torch.autocast("cpu", enabled=False), torch.device("cpu"):
        yield


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


def _compile(request: Request, path: Path) -> None:
    _ask_ahead()
    try:
        with warnings.catch_warnings(), _undisturbed():
            warnings.simplefilter("ignore", FutureWarning)  # torch's, of itself
            warnings.filterwarnings("ignore", "bf16 and fp16 are mixed")  # as they are to be
            if request.in_loops:
                library.build(loops.source(exported(request).run_decompositions()), path)
                return
            options = {"cpp.dynamic_threads": True, **_headers(), **Run(request).options()}
            torch._inductor.aoti_compile_and_package(
                exported(request), package_path=str(path), inductor_configs=options
            )
    except Exception as error:
        raise RuntimeError(
            f"backend='compile' could not compile a step: {error}\nIt needs a C++ compiler (g++, or the one that CXX "
            "names); backend='eager' needs none"
        ) from error


@functools.cache
def _sources() -> str:
    """What the programs are made of, as a number: other formulas are other programs."""
    here = (layout, library, loops, norms, operations, passes, programs, work)
    files = [
        *sorted(Path(rules.__file__).parent.glob("*.py")),
        *(Path(str(each.__file__)) for each in here),
        library.HEADER,
        Path(__file__),
    ]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
