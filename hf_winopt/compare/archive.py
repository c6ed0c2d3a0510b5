"""What is kept of a comparison beside its runs' folders, and suffices for the report: `runs.jsonl`, `machine.json`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hf_winopt.bench.machine import machine
from hf_winopt.compare.outcome import FAILED, Outcome, from_json
from hf_winopt.compare.plan import Plan, Run
from hf_winopt.files import plain, write_atomically, write_json

RUNS_FILE = "runs.jsonl"
MACHINE_FILE = "machine.json"


def save(out: Path, plan: Plan, outcomes: Mapping[Run, Outcome]) -> None:
    """Write a line a run: those of the plan in its order, then whatever else is known."""
    order = dict.fromkeys((*(run for run in plan.runs if run in outcomes), *outcomes))
    lines = (
        json.dumps(plain({**dataclasses.asdict(run), **dataclasses.asdict(outcomes[run])}), allow_nan=False) + "\n"
        for run in order
    )
    write_atomically(out / RUNS_FILE, "".join(lines))


def forget_failed(out: Path) -> None:
    """Take the failed runs out of the file."""
    known = load(out)
    if any(outcome.state == FAILED for outcome in known.values()):
        save(out, Plan((), 0, {}), {run: outcome for run, outcome in known.items() if outcome.state != FAILED})


def load(out: Path) -> dict[Run, Outcome]:
    """What `save` wrote; empty where it has not written.

    Raises:
        ValueError: a line of the file is none of ours.
    """
    path = out / RUNS_FILE
    outcomes: dict[Run, Outcome] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            entry = json.loads(line)
            run = Run(**{field.name: entry[field.name] for field in dataclasses.fields(Run)})
            outcomes[run] = from_json(entry)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} has a line that is no run: {error}") from None
    return outcomes


def save_machine(out: Path, slots: int) -> None:
    """Write on what this is running, with which versions, and how many runs at a time; what was there before stays."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    this = {**machine(device), "runs_at_a_time": slots}
    before = load_machines(out)
    if this not in before:
        write_json(out / MACHINE_FILE, [*before, this])


def load_machines(out: Path) -> list[dict[str, Any]]:
    """What `save_machine` wrote, an entry for each machine, version or number of runs at a time."""
    try:
        return list(json.loads((out / MACHINE_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return []
