"""A second process that compiles, for a first step that asks for several programs where there is a second core."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence

from . import disk
from .machine_code import compiled, file_name
from .programs import Request


@contextlib.contextmanager
def compiled_beside(requests: Sequence[Request]) -> Iterator[subprocess.Popen[bytes] | None]:
    """Within it another process compiles what is missing on disk, the last first, but for the first.

    Who compiles them all from the start meets it half way: of two processes that want the same file, one waits. So
    nothing depends on the other but the time, and at the end it is ended.
    """
    missing = [request for request in requests if not disk.has(file_name(request))]
    if len(missing) < 2 or not _can_start():
        yield None
        return
    with disk.alone_with("beside") as is_me:  # not one for each process of a distributed training
        process = _start(missing[:0:-1]) if is_me else None
        try:
            yield process
        finally:
            if process is not None:
                _end(process)


def _can_start() -> bool:
    """Whether there is a core to spare, and a Python to start (a frozen application would start itself)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores > 1 and bool(sys.executable) and not getattr(sys, "frozen", False)


_CODE = f"import sys; sys.path[:] = sys.argv[2:]; from {__name__} import main; main(sys.argv[1])"
"""What the other process runs: it finds modules where this one does, before it has looked for any."""


def _start(requests: Sequence[Request]) -> subprocess.Popen[bytes] | None:
    command = [sys.executable, "-c", _CODE, pickle.dumps(requests).hex(), *filter(_is_str, sys.path)]
    env, nowhere = {**os.environ, "HF_WINOPT_CACHE": str(disk.place())}, subprocess.DEVNULL
    with contextlib.suppress(OSError):
        # a group of its own: with it ends the compiler that it has started
        return subprocess.Popen(command, stdin=nowhere, stdout=nowhere, stderr=nowhere, env=env, start_new_session=True)
    return None


def _is_str(place: object) -> bool:
    return isinstance(place, str)


def _end(process: subprocess.Popen[bytes]) -> None:
    """At once: what it may still be at, nobody waits for."""
    if process.poll() is None:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL) if hasattr(os, "killpg") else process.kill()
    process.wait()


def main(requests: str) -> None:
    for request in pickle.loads(bytes.fromhex(requests)):
        compiled(request)
