"""One run: its folder, its process, its second try, its status."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import hf_winopt
from hf_winopt.compare import archive, outcome, plan
from hf_winopt.compare.outcome import DIVERGED, FAILED, FINISHED, Outcome
from hf_winopt.compare.settings import Settings
from hf_winopt.files import write_atomically, write_json

STATUS_FILE = "status.json"
RUNNING = "running"
ATTEMPTS = 2

# What a training leaves that is large: weights, and folders of checkpoints.
_LARGE = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True)
class Job:
    """All that it takes to execute a run, here or elsewhere.

    Args:
        folder: of the run, absolute.
        words: the words after `hf-winopt run`.
        environment: variables beside those that are set anyway.
        place: the folder in which the script is started.
        keep_models: leave weights and checkpoints where they are.
    """

    folder: Path
    words: tuple[str, ...]
    environment: Mapping[str, str]
    place: Path
    keep_models: bool


class Interrupted(Exception):
    """The run was ended from outside and has no outcome."""


class Guard:
    """Ends the processes of the runs under way; those runs count as interrupted: not as failed, and not as done."""

    def __init__(self) -> None:
        self._alive: set[subprocess.Popen[bytes]] = set()
        self._ending = threading.Event()

    def wait(self, process: subprocess.Popen[bytes]) -> int:
        """The exit status of the process; raises `Interrupted` where it was ended here."""
        self._alive.add(process)
        if self._ending.is_set():
            _kill(process)
        returncode = process.wait()
        self._alive.discard(process)
        if self._ending.is_set():
            raise Interrupted
        return returncode

    def end_all(self) -> None:
        """End all processes, and every later one at its start."""
        self._ending.set()
        for process in list(self._alive):
            _kill(process)


def make_job(settings: Settings, run: plan.Run, out: Path) -> Job:
    """The job of a run below the output folder `out`."""
    folder = out.resolve() / run.folder
    words = plan.command(settings, settings.contender(run.optim), run, str(folder / "output"))
    # Whatever the number of jobs: with another number of threads sums come out otherwise in the last digits.
    environment = {"OMP_NUM_THREADS": str(settings.threads), "TOKENIZERS_PARALLELISM": "false"}
    environment["TQDM_MININTERVAL"] = "10"  # in a log every redrawing of a bar is a line
    return Job(folder, tuple(words), environment, Path.cwd(), settings.keep_models)


def execute(job: Job, device: str | None = None, guard: Guard | None = None) -> Outcome:
    """Run to the end, and once more if it fails; the outcome, which `status.json` then holds.

    Args:
        job: what to run.
        device: value of `CUDA_VISIBLE_DEVICES` for the process; None leaves it alone.
        guard: who may end the process.
    """
    folder = job.folder
    if not folder.parents[3].is_dir():
        raise FileNotFoundError(
            f"{folder.parents[3]} is not there: --out must be on a file system that all nodes share"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "command.txt", shlex.join(["hf-winopt", "run", *job.words]) + "\n")
    failures = _failures(folder)
    start = time.monotonic()
    while True:
        write_json(folder / STATUS_FILE, {"state": RUNNING, "failures": failures})
        returncode = _spawn(job, device, guard or Guard(), attempt=len(failures) + 1)
        result = outcome.read(folder, returncode)
        result = replace(result, failures=tuple(failures), wall_seconds=time.monotonic() - start)
        if result.state != FAILED or len(failures) + 1 >= ATTEMPTS:
            break
        failures.append(result.reason)
    if not job.keep_models:
        _remove_large(folder / "output")
    keep(folder, result)
    return result


def keep(folder: Path, result: Outcome) -> None:
    """Write down what became of the run in `folder`."""
    write_json(folder / STATUS_FILE, dataclasses.asdict(result))


def find(out: Path, run: plan.Run) -> Outcome | None:
    """The outcome of a run that ended before; None if it has still to be run."""
    status = _status(out / run.folder)
    return outcome.from_json(status) if status.get("state", RUNNING) != RUNNING else None


def any_ended(out: Path) -> bool:
    """Whether there is a run that finished or diverged; one that failed says nothing of the task."""
    states = {_status(path.parent).get("state") for path in out.glob(f"runs/*/*/*/{STATUS_FILE}")}
    return not states.isdisjoint({FINISHED, DIVERGED}) or any(o.state != FAILED for o in archive.load(out).values())


def forget_failed(out: Path) -> None:
    """Let every failed run be tried again."""
    archive.forget_failed(out)
    for path in out.glob(f"runs/*/*/*/{STATUS_FILE}"):
        if _status(path.parent).get("state") == FAILED:
            path.unlink()


def progress(out: Path, run: plan.Run) -> tuple[int, int]:
    """Steps done and steps in all of a run under way; zeros until it says so."""
    try:
        shown: dict[str, Any] = json.loads((out / run.folder / "progress.json").read_text())
        return shown["step"], shown["steps"]
    except (OSError, ValueError, KeyError):
        return 0, 0


def _spawn(job: Job, device: str | None, guard: Guard, attempt: int) -> int:
    environment = {**os.environ, **job.environment}
    # For a package that is not installed; last, so that whatever the user has put there comes first.
    package = str(Path(hf_winopt.__file__).parents[1])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [environment.get("PYTHONPATH"), package]))
    if device is not None:
        environment["CUDA_VISIBLE_DEVICES"] = device
    line = [sys.executable, "-m", "hf_winopt.compare.child", str(job.folder), *job.words]
    with (job.folder / "log.txt").open("ab") as log:
        log.write(f"{outcome.ATTEMPT}{attempt}: hf-winopt run {shlex.join(job.words)}\n".encode())
        log.flush()
        # A session of its own: Ctrl-C is for the comparison, and the end of its pipe then ends the run.
        with subprocess.Popen(
            line,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=environment,
            cwd=job.place,
            start_new_session=True,
        ) as process:
            return guard.wait(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # it leads a group of its own, its data loaders among them


def _status(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / STATUS_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _failures(folder: Path) -> list[str]:
    """Of a run that was interrupted: its failures before, so that trying it again counts on."""
    return list(_status(folder).get("failures", []))


def _remove_large(output: Path) -> None:
    for checkpoint in output.glob("checkpoint-*"):
        shutil.rmtree(checkpoint, ignore_errors=True)
    for pattern in _LARGE:
        for path in output.rglob(pattern):
            path.unlink(missing_ok=True)
