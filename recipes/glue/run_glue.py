"""Fine-tune a sequence classifier on a GLUE task with Trainer and any of its optimizers, ours included.

    python recipes/glue/run_glue.py --task_name cola --optim adamw_win --output_dir runs/cola
    python recipes/glue/run_glue.py recipes/glue/configs/adan_cola.yaml --seed 1

Arguments are Trainer's, those of this package's optimizers, and the few below. A YAML file in first place gives
arguments too; the command line overrides it. Training is followed by an evaluation on the task's validation sets.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# So that the script runs from a checkout, whatever the current folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import evaluate
from datasets import Dataset, DatasetDict
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    EvalPrediction,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    set_seed,
)
from transformers.trainer_callback import PrinterCallback, ProgressCallback

import hf_winopt  # noqa: F401  (makes `--optim adamw_win` and the others known to Trainer)
from hf_winopt import WinOptTrainingArguments
from hf_winopt.integrations.timing import StepTimer
from hf_winopt.public import public_command, public_name
from recipes import report
from recipes.common import (
    OneLineProgress,
    RecipeError,
    begin,
    discard,
    parse_arguments,
)
from recipes.glue import embedded
from recipes.glue.data import EMBEDDED, describe_source, load_task
from recipes.glue.tasks import TASKS, Task, get_task

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
class DataArguments:
    task_name: str = field(metadata={"help": f"One of {', '.join(TASKS)}."})
    dataset_name: str = field(
        default="nyu-mll/glue",
        metadata={"help": f"A Hub data set, a folder in the same layout, or '{EMBEDDED}': made here, no network."},
    )
    max_length: int = field(default=128, metadata={"help": "Longer inputs are cut to this many tokens."})
    max_train_samples: int | None = field(default=None, metadata={"help": "Train on the first so many."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Evaluate on the first so many."})
    comparison: str | None = field(
        default=None, metadata={"help": "Folder of a `hf-winopt compare`; the model card quotes what it found."}
    )
    overwrite: bool = field(default=False, metadata={"help": "Discard the run that --output_dir already holds."})


def main(argv: Sequence[str] | None = None, *, title: str | None = None) -> report.Results:
    """Train, evaluate and write the report; returns its results. With a title: one progress line, no log lines."""
    argv = sys.argv[1:] if argv is None else argv
    model_args, data_args, training_args = parse(argv)
    task = get_task(data_args.task_name)
    run = begin(training_args, data_args.comparison, overwrite=data_args.overwrite)

    data = load_task(task, data_args.dataset_name)
    set_seed(training_args.seed)
    tokenizer, model = load_model(model_args.model_name_or_path, data_args, task, data)
    for split in data:
        limit = data_args.max_train_samples if split == "train" else data_args.max_eval_samples
        data[split] = tokenized(data[split], limit, tokenizer, task, data_args.max_length)

    # The loss of a classifier is the mean of its batch. Trainer 5 takes any model that accepts further keywords for one
    # that divides by the number of items itself, and would add up accumulated gradients without dividing them.
    model.accepts_loss_kwargs = False
    several = len(task.validation) > 1
    timer = StepTimer()
    trainer = Trainer(
        model=model,
        args=training_args,
        train_dataset=data["train"],
        eval_dataset={split: data[split] for split in task.validation} if several else data[task.validation[0]],
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer, pad_to_multiple_of=8 if training_args.fp16 else None),
        compute_metrics=glue_metrics(task),
        callbacks=[timer],
    )
    if title is not None:
        for callback in (ProgressCallback, PrinterCallback):
            trainer.pop_callback(callback)
        trainer.add_callback(OneLineProgress(title))

    if trainer.is_world_process_zero():
        discard(run.old_files)
    start = time.perf_counter()
    trainer.train(resume_from_checkpoint=run.checkpoint)
    trainer.save_model()
    scores = trainer.evaluate()

    prefixes = {split: f"eval_{split}_" if several else "eval_" for split in task.validation}
    source = describe_source(task, data_args.dataset_name)
    results = {
        "task": source["title"],
        "pipeline": "text-classification",
        "dataset": source,
        "model": describe_model(model_args.model_name_or_path, data_args.dataset_name, model),
        "optimizer": report.describe_optimizer(trainer.optimizer, training_args),
        "training": report.describe_training(training_args, trainer.state.max_steps)
        | {"train_examples": len(data["train"]), "max_length": data_args.max_length},
        "headline": task.headline,
        "metrics": {
            split: {name: scores[prefix + name] for name in (*task.metrics, "loss")}
            for split, prefix in prefixes.items()
        },
        "history": report.split_log(trainer.state.log_history, prefixes, task.metrics),
        "wall_seconds": time.perf_counter() - start,
        "seconds_per_step": timer.median,
        "comparison": run.compared,
        "resumed_at_step": trainer.state.global_step - len(timer.seconds),
        **report.environment(),
        "command": public_command(["python", "recipes/glue/run_glue.py"], argv),
    }
    if trainer.is_world_process_zero():
        report.write_report(run.folder, results)
        if title is None:
            print(report.summary(results), f"{run.folder} holds the model and its report.", sep="\n")
    return results


def parse(argv: Sequence[str]) -> tuple[ModelArguments, DataArguments, WinOptTrainingArguments]:
    model_args, data_args, training_args = parse_arguments(
        "run_glue.py",
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


def load_model(
    name: str | None, data_args: DataArguments, task: Task, data: DatasetDict
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """The tokenizer and the model with a fresh head for `task`."""
    labels: dict[str, Any] = {"num_labels": task.num_labels}
    if task.is_regression:
        labels["problem_type"] = "regression"
    else:
        labels["id2label"] = dict(enumerate(task.labels))
        labels["label2id"] = {label: number for number, label in enumerate(task.labels)}
    if name is None and data_args.dataset_name == EMBEDDED:
        tokenizer = embedded.train_tokenizer(data["train"]["sentence"][:])
        model = AutoModelForSequenceClassification.from_config(embedded.tiny_bert(tokenizer, **labels))
    else:
        name = name or DEFAULT_MODEL
        try:
            tokenizer = AutoTokenizer.from_pretrained(name)
            if tokenizer.pad_token is None:  # as in GPT-2
                tokenizer.pad_token = tokenizer.eos_token
            config = AutoConfig.from_pretrained(name, pad_token_id=tokenizer.pad_token_id, **labels)
            # A head of another task, which may have another size, is replaced.
            model = AutoModelForSequenceClassification.from_pretrained(
                name, config=config, ignore_mismatched_sizes=True
            )
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise RecipeError(f"cannot load the model {name!r}: {reason}") from error
    check_length(data_args.max_length, tokenizer, model.config)
    return tokenizer, model


def check_length(wanted: int, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> None:
    # Where a tokenizer does not know its model's limit it says an astronomic number.
    limit = min(getattr(config, "max_position_embeddings", None) or sys.maxsize, tokenizer.model_max_length)
    if not 0 < wanted <= limit:
        raise RecipeError(f"--max_length {wanted}: this model reads from 1 to {limit} tokens")


def tokenized(
    data: Dataset, limit: int | None, tokenizer: PreTrainedTokenizerBase, task: Task, max_length: int
) -> Dataset:
    """The first `limit` rows as token ids, and nothing else but the label; padding is left to the collator."""

    def tokenize(batch: dict[str, list[str]]) -> Any:
        return tokenizer(*(batch[column] for column in task.columns), truncation=True, max_length=max_length)

    rows = data.select(range(min(limit or len(data), len(data))))
    return rows.map(tokenize, batched=True, remove_columns=[name for name in rows.column_names if name != "label"])


def glue_metrics(task: Task) -> Callable[[EvalPrediction], dict[str, float]]:
    metric = evaluate.load(str(Path(__file__).with_name("glue_metric.py")), task.name, keep_in_memory=True)

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        outputs = prediction.predictions
        outputs = outputs[0] if isinstance(outputs, tuple) else outputs  # some models return more than logits
        predicted = outputs.squeeze(-1) if task.is_regression else outputs.argmax(-1)
        return metric.compute(predictions=predicted, references=prediction.label_ids)

    return compute


def describe_model(name: str | None, dataset_name: str, model: PreTrainedModel) -> dict[str, Any]:
    if name is None and dataset_name == EMBEDDED:
        origin = {"name": "tiny BERT", "source": "scratch"}
    else:
        name = name or DEFAULT_MODEL
        origin = {"name": public_name(name), "source": "local" if Path(name).exists() else "hub"}
    return origin | {"class": type(model).__name__, "parameters": model.num_parameters()}


if __name__ == "__main__":
    try:
        main()
    except RecipeError as error:
        sys.exit(f"run_glue.py: {error}")
