"""A script that trains nothing and leaves what Trainer leaves, and a comparison of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from hf_winopt import cli
from tests.integrations.conftest import examples, make_trainer, tiny_bert

__all__ = ["examples", "make_trainer", "tiny_bert"]  # fixtures

# The loss falls towards |log10(lr / best)|; best is 1e-2 for adan, 1e-3 for the others. `--curse` says what goes wrong:
# fail:OPTIM LR SEED always, once:... at the first attempt, nan:... by diverging, slow:... by a worker that never ends;
# semicolons between several.
TOY = """
import argparse, json, math, os, random, subprocess, sys
from pathlib import Path

parser = argparse.ArgumentParser()
for name in ("optim", "optim_args", "output_dir", "curse"):
    parser.add_argument(f"--{name}", default="")
parser.add_argument("--learning_rate", type=float)
parser.add_argument("--seed", type=int)
args = parser.parse_args()
output = Path(args.output_dir)
output.mkdir(parents=True)
here = f"{args.optim} {args.learning_rate:g} {args.seed}"
curse = {what: kind for kind, _, what in (each.partition(":") for each in args.curse.split(";"))}.get(here)
if curse == "fail":
    raise RuntimeError(f"cursed {here}")
if curse == "once" and not (output.parent / "tried").exists():
    (output.parent / "tried").touch()
    sys.exit(3)
if curse == "slow":
    worker = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    (output.parent / "pid").write_text(str(worker.pid))
    worker.wait()
best = 1e-2 if args.optim == "adan" else 1e-3
floor = abs(math.log10(args.learning_rate / best)) + 0.02 * random.Random(here).random() + 0.1 * args.seed % 0.3
floor = math.nan if curse == "nan" else floor
log = []
for step in range(10, 101, 10):
    log.append({"loss": floor + 1 / step, "step": step})
    log.append({"eval_loss": floor + 2 / step, "eval_accuracy": 1 / (1 + floor), "eval_runtime": 9.0, "step": step})
log.append({"eval_test_loss": 2 - floor, "step": 100})
log.append({"train_runtime": 7.0 if args.optim == "adan" else 5.0, "step": 100})
(output / "trainer_state.json").write_text(json.dumps({"global_step": 100, "log_history": log}))
(output / "model.safetensors").write_text("large")
print("threads", os.environ["OMP_NUM_THREADS"])
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The current folder, with the script `toy.py`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.py").write_text(TOY)
    return tmp_path


def compare(*words: str) -> int:
    """`hf-winopt compare ...` in this process; the exit status."""
    try:
        return cli.main(["compare", *map(str, words)])
    except SystemExit as exit:
        return int(exit.code or 0)


def summary(out: Path) -> dict:
    return json.loads((out / "summary.json").read_text(), parse_constant=pytest.fail)


def but_for_times(out: Path) -> tuple[list[dict], dict, str]:
    """Raw results, summary and report without what takes another time each time."""
    runs = [json.loads(line) for line in (out / "runs.jsonl").read_text().splitlines()]
    runs = [{key: run[key] for key in run if key not in ("wall_seconds", "seconds_per_step")} for run in runs]
    numbers = summary(out)
    for key in ("wall_seconds", "command"):
        numbers.pop(key)
    for machine in numbers["machines"]:
        machine.pop("runs_at_a_time")
    report = re.sub(r"```sh.*?```", "", (out / "report.md").read_text(), flags=re.DOTALL)
    return runs, numbers, "\n".join(line for line in report.splitlines() if "of runs in all" not in line)
