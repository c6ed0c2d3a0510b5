"""`hf-winopt run SCRIPT ...`: the script as `python SCRIPT ...` would run it, the optimizer names known."""

from __future__ import annotations

import argparse
import os
import runpy
import sys
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

EXAMPLES = """
examples:
  hf-winopt run run_glue.py --optim adamw_win --optim_args "reckless_steps=2:8" ...
  accelerate launch -m hf_winopt run run_glue.py --optim adan ...
"""

# What the script has made, kept until the interpreter ends: exit handlers find it, as under python itself.
_namespace: dict[str, Any] = {}


def main(argv: Sequence[str]) -> int:
    """Run the script or module as `__main__`, with `sys.argv` and `sys.path[0]` as python itself sets them.

    The exit status is the script's own, and so is the traceback of an exception that it does not catch.
    """
    parser = _parser()
    # Read by hand: argparse would look for its own options among the script's.
    if not argv:
        parser.error("which script?")
    if argv[0] == "-m":
        if len(argv) == 1:
            parser.error("-m: which module?")
        return _run(runpy.run_module, argv[1:], os.getcwd(), alter_sys=True)
    if argv[0].startswith("-"):
        parser.parse_args(argv[:1])
    if not os.path.exists(argv[0]):
        parser.error(f"no such script: {argv[0]}")
    return _run(runpy.run_path, argv, os.path.dirname(os.path.realpath(argv[0])))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hf-winopt run",
        usage="hf-winopt run (SCRIPT | -m MODULE) [ARGUMENT ...]",
        description="Run a script, unmodified, that then accepts the names of `hf-winopt list` as `--optim`.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("script", nargs="?", metavar="SCRIPT", help="the script, run as python would run it")
    parser.add_argument("-m", dest="module", metavar="MODULE", help="a module instead, as `python -m` would run it")
    parser.add_argument("arguments", nargs="*", metavar="ARGUMENT", help="what follows is for the script alone")
    return parser


def _run(runner: Callable[..., dict[str, Any]], argv: Sequence[str], path: str, **options: Any) -> int:
    sys.argv = list(argv)
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):  # these put nothing at the front
        sys.path[0] = path
    try:
        _namespace.update(runner(argv[0], run_name="__main__", **options))
    except BaseException as error:
        _report_without_own_frames(error)
        raise  # to the interpreter: it knows what each exception means for the exit status
    return 0


def _report_without_own_frames(error: BaseException) -> None:
    report, trace = sys.excepthook, _part_of_script(error.__traceback__)

    def excepthook(kind: type[BaseException], value: BaseException, whole: TracebackType | None) -> None:
        if value is error:
            value, whole = value.with_traceback(trace), trace
        report(kind, value, whole)

    sys.excepthook = excepthook


def _part_of_script(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None:
        module = trace.tb_frame.f_globals.get("__name__", "")
        if module not in (__name__, "runpy", "pkgutil") and not module.startswith("importlib."):
            break
        trace = trace.tb_next
    return trace
