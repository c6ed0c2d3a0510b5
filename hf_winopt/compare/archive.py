"""The raw results in one file: `runs.jsonl`, from which everything else can be made again without the runs' folders."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hf_winopt.bench.machine import machine
from hf_winopt.compare.carry_out import settled
from hf_winopt.compare.outcome import Outcome, from_json
from hf_winopt.compare.plan import Plan, Run, make_plan
from hf_winopt.compare.settings import Settings
from hf_winopt.files import plain, write_atomically, write_json

RUNS_FILE = "runs.jsonl"
MACHINE_FILE = "machine.json"


def save(out: Path, plan: Plan, outcomes: Mapping[Run, Outcome]) -> None:
    """Write a line a run, in the order of the plan."""
    lines = (
        json.dumps(plain({**dataclasses.asdict(run), **dataclasses.asdict(outcomes[run])}), allow_nan=False) + "\n"
        for run in plan.runs
        if run in outcomes
    )
    write_atomically(out / RUNS_FILE, "".join(lines))


def load(out: Path, settings: Settings) -> tuple[Plan, dict[Run, Outcome]]:
    """The plan and the outcomes: from the runs' folders where they are, otherwise from `runs.jsonl`.

    Raises:
        ValueError: there is neither, or a line of the file is none of ours.
    """
    if (out / "runs").is_dir():
        return settled(settings, out)
    outcomes: dict[Run, Outcome] = {}
    try:
        for line in (out / RUNS_FILE).read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            run = Run(**{field.name: entry[field.name] for field in dataclasses.fields(Run)})
            outcomes[run] = from_json(entry).under(settings.metric)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{out} holds no runs, and its {RUNS_FILE} cannot be read ({error})") from None
    return make_plan(settings, outcomes), outcomes


def save_machine(out: Path, slots: int) -> None:
    """Write on what this is running, with which versions, and how many runs at a time."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    write_json(out / MACHINE_FILE, {**machine(device), "runs_at_a_time": slots})


def load_machine(out: Path) -> dict[str, Any]:
    """What `save_machine` wrote; empty if it did not."""
    try:
        return dict(json.loads((out / MACHINE_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}
