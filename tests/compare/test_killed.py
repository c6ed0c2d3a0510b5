"""Killed at random moments, a comparison ends as an undisturbed one."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.compare.conftest import but_for_times, compare

LINE = ["toy.py", "--optims", "adamw_torch,adan", "--learning_rate", "1e-3", "--jobs", "2", "--seeds", "10"]
CURSE = ["--curse", "nan:adan 0.005 1001;fail:adamw_torch 0.001 2"]
KILLS = 20


def start(out: str) -> multiprocessing.Process:
    """The comparison in a process of its own, forked: it need not import torch anew each time.

    By a server without threads: of a process that has some, a copy can wait for ever for what one of them held.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_quietly, args=(out, os.getcwd()))
    process.start()
    return process


def _quietly(out: str, folder: str) -> None:
    os.chdir(folder)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1), os.dup2(nothing, 2)
    os._exit(compare(*LINE, *CURSE, "--out", out))


def finished() -> int:
    return sum('"finished"' in path.read_text() for path in Path("disturbed").glob("runs/*/*/*/status.json"))


def ends_by_itself(out: str) -> None:
    process = start(out)
    process.join()
    assert process.exitcode == 0


def test_killed_twenty_times(toy):
    began = time.monotonic()
    ends_by_itself("undisturbed")
    share = (time.monotonic() - began) / KILLS  # of what there is to do, for each time that it is started
    chance = random.Random(4)
    for kill in range(KILLS):
        process, before = start("disturbed"), finished()
        if kill % 3 == 2 and before < 10:  # so that it gets somewhere, but not to its end before the last kill
            while finished() == before and process.is_alive():
                process.join(0.05)
        process.join(chance.uniform(0, 1.5 * share))
        assert process.is_alive(), f"it was done before kill {kill}: there must be more to do"
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert finished() > 5
    ends_by_itself("disturbed")
    assert but_for_times(Path("disturbed")) == but_for_times(Path("undisturbed"))
    attempts = Path("disturbed").glob("runs/*/*/*/log.txt")
    assert any(log.read_text().count("=== attempt 1:") > 1 for log in attempts)  # some were indeed cut short


def test_who_comes_late_and_without_a_starter_leaves_the_result_of_another_alone(toy):
    """Even if it is not ended in time: here nothing watches."""
    result = toy / "run" / "output" / "trainer_state.json"
    result.parent.mkdir(parents=True)
    result.write_text("{}")
    late = (
        "import threading; threading.Thread.start = lambda self: None\n"
        "from hf_winopt.compare import child\n"
        "raise SystemExit(child.main(['run', 'toy.py', '--optim', 'adan', '--output_dir', 'run/output']))"
    )
    done = subprocess.run([sys.executable, "-c", late], input=b"", capture_output=True)
    assert done.returncode == 1 and not done.stderr
    assert result.read_text() == "{}"
