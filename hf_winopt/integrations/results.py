"""What a training has to say when it is over: the content of its `results.json`.

It names no user, no absolute path and no token.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.trainer_callback import TrainerState

from hf_winopt.compare.recorder import state_bytes
from hf_winopt.files import plain
from hf_winopt.integrations import names
from hf_winopt.integrations.hub import FOLDER_OR_HUB_NAME
from hf_winopt.integrations.timing import StepTimer
from hf_winopt.optim import COMPOSED
from hf_winopt.optim.base import RuleOptimizer
from hf_winopt.optim.parts import Parts
from hf_winopt.optim.registry import OPTIMIZERS, name_of
from hf_winopt.optim.win import Win
from hf_winopt.public import program, public_command

Results = dict[str, Any]

_OFF = {"max_grad_norm": 0.0, "weight_decay_gamma": 1.0}
_TIMES = {"runtime", "samples_per_second", "steps_per_second", "model_preparation_time", "jit_compilation_time"}


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
        if self.arguments.push_to_hub and self.arguments.hub_model_id and more.get("usage"):
            more["usage"] = more["usage"].replace(FOLDER_OR_HUB_NAME, self.arguments.hub_model_id)
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
            "command": public_command([*program(self.arguments.world_size), self.script], self.argv),
        }


def describe_optimizer(optimizer: Any, arguments: TrainingArguments) -> dict[str, Any]:
    """The optimizer as it ran: its `--optim` name, class, and the options of its first parameter group."""
    optimizer = getattr(optimizer, "optimizer", optimizer)  # out of Accelerate's wrapper
    group = optimizer.param_groups[0]
    # What is off or left to the optimizer says nothing; rates change with the schedule and stand under "training".
    left_out = {"params", "lr", "initial_lr", "part", "split"}
    options = {
        key: plain(value)
        for key, value in group.items()
        if key not in left_out and value is not None and value is not False and _OFF.get(key) != value
    }
    for part in optimizer.parts.values() if isinstance(optimizer, Parts) else ():
        options |= {**describe_optimizer(part, arguments)["options"], **options}
    if isinstance(optimizer, Win):
        options |= {key: value for key, value in optimizer.options.items() if key != "backend"}
    if group.get("acceleration") == "none":
        options = {key: value for key, value in options.items() if key not in ("acceleration", "reckless_steps")}
    return {
        "name": _name_of(optimizer, arguments),
        "class": _class_of(optimizer),
        "options": {key: value for key, value in options.items() if not isinstance(value, dict)},
    }


def _class_of(optimizer: Any) -> str:
    """The class; of one around another, or of several, theirs too."""
    if isinstance(optimizer, Win):
        return f"Win({_class_of(optimizer.base)})"
    if isinstance(optimizer, Parts):
        return " and ".join(map(_class_of, optimizer.parts.values()))
    return type(optimizer).__name__


def _name_of(optimizer: Any, arguments: TrainingArguments) -> str:
    """What `--optim` was given, if that is what this optimizer was made by; else the name that would make it."""
    name = optimizer_name(arguments)
    if isinstance(optimizer, (Win, Parts)):
        return name if name in COMPOSED else _class_of(optimizer)
    entry = names.lookup(name)
    if not isinstance(optimizer, RuleOptimizer) or (entry is not None and name not in OPTIMIZERS):
        return name
    row, group = OPTIMIZERS.get(name), optimizer.param_groups[0]
    if row is not None and type(optimizer) is row.cls and all(group.get(k) == v for k, v in row.fixed.items()):
        return name
    return name_of(optimizer) or type(optimizer).__name__


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
            if scores := {name: entry[prefix + name] for name in ("loss", *metrics) if prefix + name in entry}:
                # The first of two at the same step: the second may be of the best model, not of this step's.
                evaluation.setdefault((entry["step"], split), {"step": entry["step"], "split": split, **scores})
    return {"train": train, "evaluation": list(evaluation.values())}


def is_score(key: str, prefix: str, value: Any) -> bool:
    """Whether an entry of an evaluation's log is of what was evaluated; how long it took stands there too."""
    name = key.removeprefix(prefix)
    return key != name and name not in _TIMES and isinstance(value, (int, float)) and not isinstance(value, bool)


def environment(*more: str | None) -> dict[str, dict[str, Any]]:
    """Versions, of `more` packages too, and machine: what a number depends on, but not whose machine it was."""
    versions = {"python": platform.python_version()}
    for name in filter(None, ("torch", "transformers", "accelerate", *more, "hf_winopt")):
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
