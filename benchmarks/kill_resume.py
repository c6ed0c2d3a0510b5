"""A GLUE training killed at random moments and resumed, until it has been killed often: what is lost?

    python -m benchmarks.kill_resume [--kills 100] [--json FILE] [--report FILE]

Each training (`recipes/glue/run_glue.py` on its embedded data, a checkpoint every second step) is killed by SIGKILL or
SIGTERM at a moment drawn from the whole time that one takes, start and end included, and started again with
`--resume_from_checkpoint true` until it has ended. Its final weights must be those of a training that was never killed,
to the bit; nobody mends anything between two starts.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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


def start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "recipes/glue/run_glue.py"), *TRAIN.split(), "--output_dir", str(folder)]
    known = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, env=known, text=True, **pipes)


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def one_training(folder: Path, draw: random.Random, seconds: float, whole: bytes) -> dict[str, Any]:
    """Killed and resumed until it has ended, or until it fails by itself."""
    kills: Counter[str] = Counter()
    while True:
        process = start(folder)
        try:
            said, _ = process.communicate(timeout=draw.uniform(0, seconds))
        except subprocess.TimeoutExpired:
            kind = draw.choice((signal.SIGKILL, signal.SIGTERM))
            process.send_signal(kind)
            said, _ = process.communicate()
            kills[kind.name] += 1
            kills["half-written checkpoints"] += "is not whole" in said
            if not (folder / "results.json").exists():  # written last: with it there is nothing left to do
                continue
            return {"kills": kills, "ended": True, "same": weights(folder) == whole, "said": said[-2000:]}
        kills["half-written checkpoints"] += "is not whole" in said
        ended = process.returncode == 0
        return {"kills": kills, "ended": ended, "same": ended and weights(folder) == whole, "said": said[-2000:]}


def measure(kills: int, folder: Path) -> dict[str, Any]:
    draw, started = random.Random(0), time.perf_counter()
    process = start(folder / "whole")
    said, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(said)
    seconds, whole = time.perf_counter() - started, weights(folder / "whole")
    total: Counter[str] = Counter()
    failures = []
    while total["SIGKILL"] + total["SIGTERM"] < kills:
        result = one_training(folder / str(total["trainings"]), draw, seconds, whole)
        total.update(result["kills"])
        total.update({"trainings": 1, "other weights": int(result["ended"] and not result["same"])})
        if not result["ended"]:
            total["ended by themselves with an error"] += 1
            failures.append(result["said"])
        print(dict(total), flush=True)
    names = ("trainings", "SIGKILL", "SIGTERM", "half-written checkpoints", "other weights")
    counts = {name: total[name] for name in (*names, "ended by themselves with an error")}
    return {"counts": counts, "failures": failures, "steps": STEPS, "seconds": seconds, **environment()}


def table(result: dict[str, Any]) -> str:
    return markdown(("what", "how often"), [(name, str(count)) for name, count in result["counts"].items()])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--report", type=Path, help="only print the table of figures written before")
    arguments = parser.parse_args(argv)
    if arguments.report:
        print(table(json.loads(arguments.report.read_text(encoding="utf-8"))))
        return
    with tempfile.TemporaryDirectory() as folder:
        result = measure(arguments.kills, Path(folder))
    if arguments.json:
        write_json(arguments.json, result)
    print(table(result))


if __name__ == "__main__":
    main()
