"""A GLUE training killed at random moments and resumed, until it has been killed often: what is lost?

    python -m benchmarks.kill_resume [--kills 100] [--script run_glue] [--processes 1] [--json FILE] [--report FILE]

Each training (a script of `recipes/glue` on its embedded data, a checkpoint every second step) is killed by SIGKILL or
SIGTERM at a moment drawn from the whole processor time that one takes, start and end included, and started again with
`--resume_from_checkpoint true` until it has ended. Processor time, since what else runs on the machine would move all
moments towards the start. Of several processes one is killed, and the launcher ends the rest.
The final weights must be those of a training that was never killed, to the bit; nobody mends anything between two
starts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from hf_winopt.bench.table import markdown
from hf_winopt.files import write_json
from hf_winopt.integrations.results import environment
from hf_winopt.public import ROOT

STEPS = 40
TRAIN = (
    "--task_name cola --dataset_name embedded --max_train_samples 256 --max_eval_samples 32 --max_length 32 "
    "--optim adamw_win --learning_rate 1e-3 --per_device_train_batch_size 16 --eval_strategy steps --eval_steps 10 "
    f"--max_steps {STEPS} --save_strategy steps --save_steps 2 --save_total_limit 3 --logging_steps 1 --report_to none "
    "--disable_tqdm true --use_cpu true --dataloader_pin_memory false --resume_from_checkpoint true"
)


SCRIPTS = ("run_glue", "run_glue_no_trainer")
LAUNCH = ("-m", "accelerate.commands.launch", "--config_file", str(ROOT / "recipes/accelerate/two_cpus.yaml"))


@dataclass(frozen=True)
class Training:
    """What is started again and again: one of `SCRIPTS`, by so many processes."""

    script: str
    processes: int

    def start(self, folder: Path) -> subprocess.Popen[str]:
        launch = [*LAUNCH, "--num_processes", str(self.processes)] if self.processes > 1 else []
        train = [str(self.path), *TRAIN.split(), "--output_dir", str(folder)]
        known = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen([sys.executable, *launch, *train], env=known, text=True, **pipes)

    def kill_one(self, started: subprocess.Popen[str], kind: signal.Signals, draw: random.Random) -> None:
        """One of the processes that train; the launcher, where it has yet to start them."""
        launcher = psutil.Process(started.pid)
        children = launcher.children() if self.processes > 1 else []
        training = [child for child in children if str(self.path) in _command(child)]
        victim = draw.choice(training) if training else launcher
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.send_signal(kind)

    @property
    def path(self) -> Path:
        return ROOT / "recipes/glue" / f"{self.script}.py"


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []


def spent(started: subprocess.Popen[str]) -> float:
    """Processor seconds of a process and of those that it started."""
    try:
        here = psutil.Process(started.pid)
        times = [each.cpu_times() for each in (here, *here.children(recursive=True))]
    except psutil.NoSuchProcess:
        return 0.0
    return sum(each.user + each.system for each in times)


def said_within(started: subprocess.Popen[str], seconds: float) -> str | None:
    """All that a process said, if it ended before it had used so many processor seconds; else None."""
    while spent(started) < seconds:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return started.communicate(timeout=0.02)[0]
    return None


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def one_training(training: Training, folder: Path, draw: random.Random, seconds: float, whole: bytes) -> dict[str, Any]:
    """Killed and resumed until it has ended, or until it fails by itself."""
    kills: Counter[str] = Counter()
    while True:
        process = training.start(folder)
        said = said_within(process, draw.uniform(0, seconds))
        if said is None:
            kind = draw.choice((signal.SIGKILL, signal.SIGTERM))
            training.kill_one(process, kind, draw)
            said, _ = process.communicate()
            kills[kind.name] += 1
            kills["half-written checkpoints"] += "is not whole" in said
            if not (folder / "results.json").exists():  # written last: with it there is nothing left to do
                continue
            return {"kills": kills, "ended": True, "same": weights(folder) == whole, "said": said[-2000:]}
        kills["half-written checkpoints"] += "is not whole" in said
        ended = process.returncode == 0
        return {"kills": kills, "ended": ended, "same": ended and weights(folder) == whole, "said": said[-2000:]}


def used_by_others() -> float:
    """Processor seconds of all processes that this one has started and seen to their end."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(training: Training, kills: int, folder: Path) -> dict[str, Any]:
    draw, before = random.Random(0), used_by_others()
    process = training.start(folder / "whole")
    said, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(said)
    seconds, whole = used_by_others() - before, weights(folder / "whole")
    total: Counter[str] = Counter()
    failures = []
    while total["SIGKILL"] + total["SIGTERM"] < kills:
        result = one_training(training, folder / str(total["trainings"]), draw, seconds, whole)
        total.update(result["kills"])
        total.update({"trainings": 1, "other weights": int(result["ended"] and not result["same"])})
        if not result["ended"]:
            total["ended by themselves with an error"] += 1
            failures.append(result["said"])
        print(dict(total), flush=True)
    names = ("trainings", "SIGKILL", "SIGTERM", "half-written checkpoints", "other weights")
    counts = {name: total[name] for name in (*names, "ended by themselves with an error")}
    return {
        "counts": counts,
        "failures": failures,
        "steps": STEPS,
        "cpu_seconds": seconds,
        **asdict(training),
        **environment(),
    }


def table(result: dict[str, Any]) -> str:
    return markdown(("what", "how often"), [(name, str(count)) for name, count in result["counts"].items()])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--script", choices=SCRIPTS, default=SCRIPTS[0])
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--report", type=Path, help="only print the table of figures written before")
    arguments = parser.parse_args(argv)
    if arguments.report:
        print(table(json.loads(arguments.report.read_text(encoding="utf-8"))))
        return
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Training(arguments.script, arguments.processes), arguments.kills, Path(folder))
    if arguments.json:
        write_json(arguments.json, result)
    print(table(result))


if __name__ == "__main__":
    main()
