"""What is trained on what: from the arguments to the model, its tokens and the metrics, and the report."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from transformers import BatchEncoding, DataCollatorWithPadding, PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_callback import TrainerState

from hf_winopt.integrations.timing import StepTimer
from hf_winopt.public import public_command
from recipes import report
from recipes.common import RecipeError
from recipes.glue.arguments import Arguments
from recipes.glue.data import describe_source, load_task
from recipes.glue.model import describe_model, load_model
from recipes.glue.scores import Metrics, glue_metrics
from recipes.glue.tasks import Task, get_task


@dataclass(frozen=True)
class Experiment:
    """All that a training script needs, checked before any training."""

    task: Task
    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel
    train: Dataset
    validation: dict[str, Dataset]
    collator: DataCollatorWithPadding
    metrics: Metrics

    @property
    def prefixes(self) -> dict[str, str]:
        """What stands before a metric of each validation set in the log; the names are Trainer's."""
        several = len(self.validation) > 1
        return {split: f"eval_{split}_" if several else "eval_" for split in self.validation}


def prepare(arguments: Arguments) -> Experiment:
    """Read the data, load or make the model, and turn text into tokens.

    Args:
        arguments: of the script; the seed must be set already.

    Raises:
        RecipeError: some of it does not fit.
    """
    model_args, data_args, training_args = arguments
    task = get_task(data_args.task_name)
    # One process works, and the others then find in the cache what it made.
    with training_args.main_process_first():
        data = load_task(task, data_args.dataset_name)
    tokenizer, model = load_model(model_args.model_name_or_path, data_args, task, data["train"])
    with training_args.main_process_first():
        for split in data:
            limit = data_args.max_train_samples if split == "train" else data_args.max_eval_samples
            rows = data[split].select(range(min(limit or len(data[split]), len(data[split]))))
            data[split] = _tokenized(rows, tokenizer, model, task, data_args.max_length)
    if training_args.dataloader_drop_last:
        for split in data:
            rows = training_args.train_batch_size if split == "train" else training_args.eval_batch_size
            if len(data[split]) < (least := rows * training_args.world_size):
                raise RecipeError(
                    f"--dataloader_drop_last: the {len(data[split])} rows of {split} are no whole batch of {least}"
                )
    return Experiment(
        task,
        tokenizer,
        model,
        data["train"],
        {split: data[split] for split in task.validation},
        DataCollatorWithPadding(tokenizer, pad_to_multiple_of=8 if training_args.fp16 else None),
        glue_metrics(task),
    )


def results(
    arguments: Arguments,
    experiment: Experiment,
    program: Sequence[str],
    argv: Sequence[str],
    optimizer: Any,
    state: TrainerState,
    timer: StepTimer,
    scores: Mapping[str, float],
    compared: str | None,
    wall_seconds: float,
) -> report.Results:
    """What `report.write_report` takes.

    Args:
        arguments, experiment: what was trained.
        program, argv: the command.
        optimizer: as it is after the training.
        state: Trainer's, or one kept by hand, after the training.
        timer: of its steps.
        scores: loss and metrics of every validation set, under the names of `Experiment.prefixes`.
        compared: what a comparison says of the optimizer.
        wall_seconds: of training and evaluating.
    """
    model_args, data_args, training_args = arguments
    task, prefixes = experiment.task, experiment.prefixes
    source = describe_source(task, data_args.dataset_name)
    return {
        "task": source["title"],
        "pipeline": "text-classification",
        "dataset": source,
        "model": describe_model(model_args.model_name_or_path, data_args.dataset_name, experiment.model),
        "optimizer": report.describe_optimizer(optimizer, training_args),
        "training": report.describe_training(training_args, state.max_steps)
        | {"train_examples": len(experiment.train), "max_length": data_args.max_length},
        "headline": task.headline,
        "metrics": {
            split: {name: scores[prefix + name] for name in (*task.metrics, "loss")}
            for split, prefix in prefixes.items()
        },
        "history": report.split_log(state.log_history, prefixes, task.metrics),
        "wall_seconds": wall_seconds,
        "seconds_per_step": timer.median,
        "comparison": compared,
        "resumed_at_step": state.global_step - len(timer.seconds),
        **report.environment(),
        "command": public_command(program, argv),
    }


def _tokenized(
    rows: Dataset, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, task: Task, max_length: int
) -> Dataset:
    """Token ids, what else the model reads of what the tokenizer makes, and labels; padding is left to the collator."""

    def tokenize(batch: dict[str, list[str]]) -> BatchEncoding:
        return tokenizer(*(batch[column] for column in task.columns), truncation=True, max_length=max_length)

    tokens = rows.map(tokenize, batched=True, remove_columns=[name for name in rows.column_names if name != "label"])
    known = {"label", *inspect.signature(model.forward).parameters}
    return tokens.remove_columns([name for name in tokens.column_names if name not in known])
