"""What is trained on what: from the arguments to the model, its tokens and the metrics, and the report."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

from datasets import Dataset
from transformers import BatchEncoding, DataCollatorWithPadding, PreTrainedModel, PreTrainedTokenizerBase

from hf_winopt.integrations.results import Finished, Results
from recipes.common import RecipeError
from recipes.glue.arguments import Arguments
from recipes.glue.data import describe_source, load_task
from recipes.glue.model import describe_model, load_model
from recipes.glue.scores import Metrics, glue_metrics
from recipes.glue.tasks import Task, get_task

USAGE = """
from transformers import pipeline

classify = pipeline("text-classification", model="FOLDER_OR_HUB_NAME")
print(classify({example}))
""".strip()


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


def results(arguments: Arguments, experiment: Experiment, finished: Finished) -> Results:
    """What `report.write_report` takes."""
    model_args, data_args, _ = arguments
    task = experiment.task
    source = describe_source(task, data_args.dataset_name)
    return finished.results(
        experiment.prefixes,
        task.metrics,
        {"train_examples": len(experiment.train), "max_length": data_args.max_length},
        task=source["title"],
        license=data_args.license,
        usage=USAGE.format(example=_example(task)),
        pipeline="text-classification",
        dataset=source,
        model=describe_model(model_args.model_name_or_path, data_args.dataset_name, experiment.model),
    )


def _tokenized(
    rows: Dataset, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, task: Task, max_length: int
) -> Dataset:
    """Token ids, what else the model reads of what the tokenizer makes, and labels; padding is left to the collator."""

    def tokenize(batch: dict[str, list[str]]) -> BatchEncoding:
        return tokenizer(*(batch[column] for column in task.columns), truncation=True, max_length=max_length)

    tokens = rows.map(tokenize, batched=True, remove_columns=[name for name in rows.column_names if name != "label"])
    known = {"label", *inspect.signature(model.forward).parameters}
    return tokens.remove_columns([name for name in tokens.column_names if name not in known])


def _example(task: Task) -> str:
    if len(task.columns) == 1:
        return '"The keys near the cabinet are old."'
    return '{"text": "The keys are old.", "text_pair": "The keys are new."}'
