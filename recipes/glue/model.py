"""The model of a run and its tokenizer: a pretrained one with a fresh head, or a tiny one from scratch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from hf_winopt.public import public_name
from recipes.common import RecipeError
from recipes.glue import embedded
from recipes.glue.arguments import DEFAULT_MODEL, DataArguments
from recipes.glue.data import EMBEDDED
from recipes.glue.tasks import Task


def load_model(
    name: str | None, data_args: DataArguments, task: Task, train: Dataset
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """The tokenizer and the model with a fresh head for `task`."""
    labels: dict[str, Any] = {"num_labels": task.num_labels}
    if task.is_regression:
        labels["problem_type"] = "regression"
    else:
        labels["id2label"] = dict(enumerate(task.labels))
        labels["label2id"] = {label: number for number, label in enumerate(task.labels)}
    if name is None and data_args.dataset_name == EMBEDDED:
        tokenizer = embedded.train_tokenizer(train["sentence"][:])
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
            ).float()  # steps would be lost in the rounding of weights that were stored in half precision
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise RecipeError(f"cannot load the model {name!r}: {reason}") from error
    _check_length(data_args.max_length, tokenizer, model.config)
    return tokenizer, model


def describe_model(name: str | None, dataset_name: str, model: PreTrainedModel) -> dict[str, Any]:
    """What results and model card say about it."""
    if name is None and dataset_name == EMBEDDED:
        origin = {"name": "tiny BERT", "source": "scratch"}
    else:
        name = name or DEFAULT_MODEL
        origin = {"name": public_name(name), "source": "local" if Path(name).exists() else "hub"}
    return origin | {"class": type(model).__name__, "parameters": model.num_parameters()}


def _check_length(wanted: int, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> None:
    # Where a tokenizer does not know its model's limit it says an astronomic number.
    limit = min(getattr(config, "max_position_embeddings", None) or sys.maxsize, tokenizer.model_max_length)
    if not 0 < wanted <= limit:
        raise RecipeError(f"--max_length {wanted}: this model reads from 1 to {limit} tokens")
