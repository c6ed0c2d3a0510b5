"""The process of a run: `python -m hf_winopt.compare.child FOLDER SCRIPT ...`, `hf-winopt run SCRIPT ...` recorded.

It ends when whoever started it does, so that no run goes on unseen beside a second one in the same folder.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from filelock import FileLock

from hf_winopt import scripts
from hf_winopt.compare.outcome import RECORD_FILE
from hf_winopt.integrations.on_import import when_imported

LOCK_SECONDS = 60
"""How long a process may take to end that ran here before and whose starter is gone."""

_held: list[FileLock] = []  # until the process ends


def main(argv: Sequence[str]) -> int:
    """Run the script recorded; its exit status."""
    folder, *command = argv
    starter = _end_with_starter()
    lock = FileLock(Path(folder, ".lock"))
    lock.acquire(timeout=LOCK_SECONDS)
    _held.append(lock)
    # Whoever comes after a starter that is gone may have been here before us, and what is here is then its result.
    if select.select([starter], [], [], 0)[0]:
        return 1
    clear(Path(folder))
    when_imported("transformers.trainer", lambda module: _record(module, Path(folder)))
    return scripts.run(command)


def clear(folder: Path) -> None:
    """Take away what an attempt before left."""
    shutil.rmtree(folder / "output", ignore_errors=True)
    for name in (RECORD_FILE, "progress.json"):
        (folder / name).unlink(missing_ok=True)


def _record(module: ModuleType, folder: Path) -> None:
    from hf_winopt.compare.recorder import Recorder  # imports transformers

    module.DEFAULT_CALLBACKS.append(Recorder(folder.resolve()))


def _end_with_starter() -> int:
    """Standard input is a pipe that the starter holds and never writes to: its end is the starter's end.

    Returns:
        Its descriptor.
    """
    starter = os.dup(sys.stdin.fileno())
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), sys.stdin.fileno())

    def watch() -> None:
        os.read(starter, 1)
        if os.getpgrp() == os.getpid():  # with its own children: workers that load data, say
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="watch-starter").start()
    return starter


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
