"""What a recipe leaves behind: `results.json`, and made from it alone, `curves.png` and the model card `README.md`.

None of the three names a user, an absolute path or a token.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.trainer_callback import TrainerState

from hf_winopt.compare.recorder import state_bytes
from hf_winopt.drawing import colour, picture
from hf_winopt.files import plain, write_atomically, write_json
from hf_winopt.integrations.hub import CARD_FILE, RESULTS_FILE, WinOptModelCard, readable, score
from hf_winopt.integrations.timing import StepTimer
from hf_winopt.public import public_command

Results = dict[str, Any]

CURVES_FILE = "curves.png"


def write_report(folder: Path, results: Results) -> None:
    """The three files; `results.json` comes last, since it marks the run as finished."""
    results = plain(results)
    draw_curves(folder / CURVES_FILE, {results["optimizer"]["name"]: results})
    write_atomically(folder / CARD_FILE, str(WinOptModelCard.from_results(results)))
    write_json(folder / RESULTS_FILE, results)


def summary(results: Results) -> str:
    """The final scores, a line for each validation set."""
    return "\n".join(
        f"{results['task']}, {split}: "
        + ", ".join(f"{readable(name)} {score(value)}" for name, value in scores.items())
        for split, scores in results["metrics"].items()
    )


# ---------------------------------------------------------------------------------------- parts of the results


@dataclass(frozen=True)
class Finished:
    """A training that has ended, as every recipe reports it.

    Args:
        script, argv: the command.
        arguments: Trainer's.
        optimizer: as it is after the training.
        state: Trainer's, or one kept by hand, after the training.
        timer: of its steps.
        scores: of the last evaluations, as they are logged.
        compared: what a comparison says of the optimizer.
        wall_seconds: of training and evaluating.
    """

    script: str
    argv: Sequence[str]
    arguments: TrainingArguments
    optimizer: Any
    state: TrainerState
    timer: StepTimer
    scores: Mapping[str, float]
    compared: str | None
    wall_seconds: float

    def results(
        self, prefixes: Mapping[str, str], metrics: Sequence[str], training: Mapping[str, Any], **more: Any
    ) -> Results:
        """What `write_report` takes.

        Args:
            prefixes: what stands before a metric of each data split in the log.
            metrics: beside the loss; the first stands for the task in curves and tables.
            training: what else the result depends on.
            more: `task`, `pipeline`, `dataset`, `model`, and what only some recipes have.
        """
        return {
            **more,
            "optimizer": describe_optimizer(self.optimizer, self.arguments),
            "training": describe_training(self.arguments, self.state.max_steps) | dict(training),
            "headline": metrics[0],
            "metrics": {
                split: {name: self.scores[prefix + name] for name in (*metrics, "loss")}
                for split, prefix in prefixes.items()
            },
            "history": split_log(self.state.log_history, prefixes, metrics),
            "wall_seconds": self.wall_seconds,
            "seconds_per_step": self.timer.median,
            "state_bytes": state_bytes(self.optimizer),
            "comparison": self.compared,
            "resumed_at_step": self.state.global_step - len(self.timer.seconds),
            **environment(),
            "command": public_command(["python", self.script], self.argv),
        }


def describe_optimizer(optimizer: Any, arguments: TrainingArguments) -> dict[str, Any]:
    """The optimizer as it ran: its `--optim` name, class, and the options of its first parameter group."""
    optimizer = getattr(optimizer, "optimizer", optimizer)  # out of Accelerate's wrapper
    # What is off or left to the optimizer says nothing; rates change with the schedule and stand under "training".
    left_out = {"params", "lr", "initial_lr"}
    options = {
        key: plain(value)
        for key, value in optimizer.param_groups[0].items()
        if key not in left_out and value is not None and value is not False
    }
    return {
        "name": optimizer_name(arguments),
        "class": type(optimizer).__name__,
        "options": {key: value for key, value in options.items() if not isinstance(value, dict)},
    }


def optimizer_name(arguments: TrainingArguments) -> str:
    """What `--optim` was given."""
    return str(getattr(arguments.optim, "value", arguments.optim))


def describe_training(arguments: TrainingArguments, steps: int) -> dict[str, Any]:
    """What else the result depends on; `steps` are those of the whole training."""
    return {
        "seed": arguments.seed,
        "learning_rate": arguments.learning_rate,
        "lr_scheduler_type": str(getattr(arguments.lr_scheduler_type, "value", arguments.lr_scheduler_type)),
        "warmup_steps": arguments.get_warmup_steps(steps),
        "steps": steps,
        "batch_size": arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size,
        "max_grad_norm": arguments.max_grad_norm,
        "precision": "fp16" if arguments.fp16 else "bf16" if arguments.bf16 else "fp32",
    }


def split_log(log: Iterable[Mapping[str, Any]], prefixes: Mapping[str, str], metrics: Sequence[str]) -> Results:
    """Trainer's log as two histories; `prefixes` says what Trainer puts before the metrics of each data split."""
    log = list(log)
    kept = ("step", "epoch", "loss", "learning_rate", "grad_norm")
    train = [{key: entry[key] for key in kept if key in entry} for entry in log if "loss" in entry]
    evaluation: dict[tuple[int, str], dict[str, Any]] = {}
    for entry in log:
        for split, prefix in prefixes.items():
            if f"{prefix}loss" in entry:
                scores = {name: entry[prefix + name] for name in ("loss", *metrics)}
                # The first of two at the same step: the second may be of the best model, not of this step's.
                evaluation.setdefault((entry["step"], split), {"step": entry["step"], "split": split, **scores})
    return {"train": train, "evaluation": list(evaluation.values())}


def environment() -> dict[str, dict[str, Any]]:
    """Versions and machine: what a number depends on, and nothing that tells whose machine it was."""
    versions = {"python": platform.python_version()}
    for name in ("torch", "transformers", "accelerate", "hf_winopt"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # a checkout that is not installed
            versions[name] = getattr(__import__(name), "__version__", "unknown")
    machine = {
        "platform": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    return {"versions": versions, "machine": machine}


# ------------------------------------------------------------------------------------------------ the picture


def draw_curves(path: Path, runs: Mapping[str, Results]) -> None:
    """Training loss and headline metric against steps, one colour a run."""
    first = next(iter(runs.values()))
    metric = first["headline"]
    splits = list(first["metrics"])
    with picture(path, f"{first['task']}, {first['model']['name']}", size=(10, 4)) as figure:
        left, right = figure.subplots(1, 2, sharex=True)
        for index, (label, results) in enumerate(runs.items()):
            train, evaluation = results["history"]["train"], results["history"]["evaluation"]
            marker = "o" if len(train) == 1 else None
            left.plot(*_points(train, "loss"), color=colour(index), label=label, linewidth=1.6, marker=marker)
            for split, line in zip(splits, ("-", "--"), strict=False):
                points = _points([entry for entry in evaluation if entry["split"] == split], metric)
                name = f"{label if len(splits) == 1 else f'{label}, {readable(split)}'}: {score(points[1][-1])}"
                right.plot(*points, line, color=colour(index), label=name, linewidth=1.6, marker="o", markersize=3.5)
        left.set(title="Training loss", xlabel="steps")
        right.set(title=f"{readable(metric)[0].upper()}{readable(metric)[1:]}", xlabel="steps")
        left.legend(loc="upper right")  # where a falling loss leaves room
        right.legend()


def _points(history: Sequence[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
    return [entry["step"] for entry in history], [math.nan if entry[key] is None else entry[key] for entry in history]
