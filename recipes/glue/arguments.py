"""The arguments that both training scripts take beside Trainer's, and what can be wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hf_winopt import WinOptTrainingArguments
from recipes.common import RecipeError, RunArguments, parse_arguments
from recipes.glue.data import EMBEDDED
from recipes.glue.tasks import TASKS

DEFAULT_MODEL = "google-bert/bert-base-uncased"


@dataclass
class ModelArguments:
    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "Any model that AutoModelForSequenceClassification takes, from the Hub or a folder. Default: "
            f"{DEFAULT_MODEL}, or with --dataset_name {EMBEDDED} a tiny BERT from scratch."
        },
    )


@dataclass
class DataArguments(RunArguments):
    task_name: str = field(metadata={"help": f"One of {', '.join(TASKS)}."})
    dataset_name: str = field(
        default="nyu-mll/glue",
        metadata={"help": f"A Hub data set, a folder in the same layout, or '{EMBEDDED}': made here, no network."},
    )
    max_length: int = field(default=128, metadata={"help": "Longer inputs are cut to this many tokens."})
    max_train_samples: int | None = field(default=None, metadata={"help": "Train on the first so many."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Evaluate on the first so many."})


Arguments = tuple[ModelArguments, DataArguments, WinOptTrainingArguments]


def parse(script: str, argv: Sequence[str]) -> Arguments:
    """All three, from a command line.

    Raises:
        RecipeError: something cannot be.
    """
    model_args, data_args, training_args = parse_arguments(
        Path(script).name,
        (ModelArguments, DataArguments, WinOptTrainingArguments),
        argv,
        # A curve needs points, where Trainer's own defaults are no evaluation and a log line every 500 steps.
        {"output_dir": "runs/glue", "eval_strategy": "epoch", "logging_steps": 50},
    )
    for name in ("max_train_samples", "max_eval_samples"):
        if (limit := getattr(data_args, name)) is not None and limit < 1:
            raise RecipeError(f"--{name} {limit}: must be at least 1")
    if training_args.fp16 and training_args.device.type == "cpu":
        raise RecipeError("fp16 needs a GPU: give --fp16 false")
    return model_args, data_args, training_args
