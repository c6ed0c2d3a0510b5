"""What became of a run, read from what Trainer left in its output folder."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hf_winopt.public import public_text

STATE_FILE = "trainer_state.json"  # Trainer's own name for it
RECORD_FILE = "record.json"

ATTEMPT = "=== attempt "  # begins a line of the log

FINISHED, DIVERGED, FAILED = "finished", "diverged", "failed"

MOST_LOSSES = 200
"""Of a longer log, evenly many are kept: enough for a curve."""


@dataclass(frozen=True)
class Outcome:
    """What is kept of a run.

    Args:
        state: "finished", "diverged" or "failed".
        reason: why it diverged or failed, in a sentence; empty otherwise.
        steps: optimizer steps that it trained.
        evaluations: Trainer's evaluations, rising in `step`; of two at a step the first, since a later one may be of
            the best model and not of this step's.
        losses: (step, training loss) pairs.
        state_bytes: of the optimizer's state; None where it was not seen.
        failures: why earlier attempts failed.
        seconds_per_step: median, without loading data and evaluating; None where it is not known.
        wall_seconds: of the process.
    """

    state: str
    reason: str = ""
    steps: int = 0
    evaluations: tuple[dict[str, float], ...] = ()
    losses: tuple[tuple[int, float], ...] = ()
    state_bytes: int | None = None
    failures: tuple[str, ...] = ()
    seconds_per_step: float | None = None
    wall_seconds: float = 0.0

    def under(self, metric: str) -> Outcome:
        """As it counts in a comparison by `metric`: diverged where that is not finite at the end.

        Raises:
            ValueError: the run ended well but its last evaluation does not have the metric.
        """
        if self.state != FINISHED:
            return self
        last = self.evaluations[-1] if self.evaluations else {}
        if metric not in last:
            known = ", ".join(sorted(key for key in last if key != "step"))
            hint = f"it has {known}" if known else "it never evaluated: say --eval_strategy steps --eval_steps N"
            raise ValueError(f"the script logs no {metric} at its end: {hint}")
        value = last[metric]
        if math.isfinite(value):
            return self
        return replace(self, state=DIVERGED, reason=f"{metric} at the end is {value}")

    def value(self, metric: str) -> float:
        """The metric at the end; NaN unless the run finished."""
        return self.evaluations[-1][metric] if self.state == FINISHED else math.nan

    def curve(self, metric: str) -> list[tuple[int, float]]:
        """(step, metric) of every evaluation that has it."""
        return [(int(entry["step"]), entry[metric]) for entry in self.evaluations if metric in entry]


def from_json(entry: Mapping[str, Any]) -> Outcome:
    """The outcome among the keys of a line of `runs.jsonl` or of a `status.json`."""
    known = {field.name: entry[field.name] for field in dataclasses.fields(Outcome) if field.name in entry}
    known["evaluations"] = tuple(
        {key: math.nan if value is None else value for key, value in evaluation.items()}
        for evaluation in known["evaluations"]
    )
    known["losses"] = tuple((step, math.nan if loss is None else loss) for step, loss in known["losses"])
    return Outcome(**{**known, "failures": tuple(known["failures"])})


def read(folder: Path, returncode: int) -> Outcome:
    """The outcome of the process that ran in `folder` and left its `output/` there.

    A run has diverged where the recorder saw it diverge, and failed where the process ended with an error or left no
    state of Trainer's.
    """
    record = _load(folder / RECORD_FILE) or {}
    path = state_file(folder / "output")
    state = (_load(path) if path else None) or {}
    log, steps = state.get("log_history", []), state.get("global_step", 0)
    seen = Outcome(
        FINISHED,
        steps=steps,
        evaluations=_evaluations(log),
        losses=_losses(log),
        state_bytes=record.get("state_bytes"),
        seconds_per_step=record.get("seconds_per_step") or _overall(log, steps),
    )
    if reason := record.get("diverged"):
        return replace(seen, state=DIVERGED, reason=reason)
    if returncode:
        return replace(seen, state=FAILED, reason=f"exit status {returncode}: {last_words(folder / 'log.txt')}")
    if not state:
        return replace(seen, state=FAILED, reason=f"it left no {STATE_FILE}: does the script train with Trainer?")
    return seen


def state_file(output: Path) -> Path | None:
    """Trainer's state of the whole run: in the output folder itself, else in its last checkpoint."""
    if (output / STATE_FILE).is_file():
        return output / STATE_FILE
    checkpoints = [path for path in output.glob(f"checkpoint-*/{STATE_FILE}") if path.parent.name[11:].isdigit()]
    return max(checkpoints, key=lambda path: int(path.parent.name[11:]), default=None)


def last_words(log: Path) -> str:
    """Of the last attempt's log the last line that says something: of a traceback, the error."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "no log"
    *_, last = text.split(ATTEMPT)
    lines = [line.strip() for line in re.split(r"[\r\n]", last.partition("\n")[2]) if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)]
    return public_text((errors or lines or ["it logged nothing"])[-1][:300])


def _load(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _evaluations(log: Sequence[Mapping[str, Any]]) -> tuple[dict[str, float], ...]:
    found: dict[int, dict[str, float]] = {}
    for entry in log:
        scores = {key: value for key, value in entry.items() if key.startswith("eval_") and _is_number(value)}
        scores = {key: value for key, value in scores.items() if not key.endswith(("_runtime", "_per_second"))}
        if scores:
            mine = found.setdefault(entry["step"], {"step": entry["step"]})
            for key, value in scores.items():  # several validation sets are logged apart
                mine.setdefault(key, value)
    return tuple(found[step] for step in sorted(found))


def _losses(log: Sequence[Mapping[str, Any]]) -> tuple[tuple[int, float], ...]:
    losses = [(entry["step"], entry["loss"]) for entry in log if _is_number(entry.get("loss"))]
    stride = -(-len(losses) // MOST_LOSSES) or 1
    return tuple(losses[stride - 1 :: stride])


def _overall(log: Sequence[Mapping[str, Any]], steps: int) -> float | None:
    runtimes = [entry["train_runtime"] for entry in log if "train_runtime" in entry]
    return runtimes[-1] / steps if runtimes and steps else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
