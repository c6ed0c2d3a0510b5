"""A script, or a module, run in this process as `python` would run it."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

# What the script has made, kept until the interpreter ends: exit handlers find it, as under python itself.
_namespace: dict[str, Any] = {}


def run(argv: Sequence[str]) -> int:
    """Run a script (`SCRIPT ARGUMENT ...`) or module (`-m MODULE ARGUMENT ...`) as `__main__`.

    `sys.argv` and `sys.path[0]` are as python itself sets them. The exit status is the script's own, and so is the
    traceback of an exception that it does not catch.
    """
    if argv[0] == "-m":
        return _run(runpy.run_module, argv[1:], os.getcwd(), alter_sys=True)
    return _run(runpy.run_path, argv, os.path.dirname(os.path.realpath(argv[0])))


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
