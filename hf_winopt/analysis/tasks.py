"""A model folder and a data set as what the Hessian asks for: the model, batches with labels, and the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

Collate = Callable[[list[Any]], dict[str, Tensor]]

LABELS = ("label", "labels", "fine_label")


class Task(NamedTuple):
    """What `hessian_spectrum` is given; `loss` is the model's own."""

    model: nn.Module
    batches: DataLoader[Any]
    examples: int


def own_loss(model: nn.Module, batch: Any) -> Tensor:
    """The loss that a transformers model returns when it is given labels."""
    return model(**batch).loss


def load_task(name: str, data: Any, batch_size: int, device: str) -> Task:
    """A classifier of sentences or images, or a causal language model, with examples to be judged by.

    Args:
        name: a folder with a model, or its name on the Hub.
        data: a `datasets.Dataset` with the columns that the task needs: one or two of text, or one of images, and the
            labels; for a language model one of text.
        batch_size: examples in a batch.
        device: where the model goes.

    Raises:
        ValueError: a model of another task, or data without what it needs, and what would be right.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(name)
    architecture = (config.architectures or [""])[0]
    for ending, prepare in _TASKS.items():
        if architecture.endswith(ending):
            model, examples, collate = prepare(name, data)
            break
    else:
        raise ValueError(
            f"model must be one of {', '.join('*' + ending for ending in _TASKS)}; got {architecture or name}. "
            "For others there is hf_winopt.analysis.hessian_spectrum(model, dataloader, loss)"
        )
    batches: DataLoader[Any] = DataLoader(cast(Any, examples), batch_size=batch_size, collate_fn=collate)
    return Task(model.to(device), batches, len(examples))


def _sentences(name: str, data: Any) -> tuple[nn.Module, Sequence[Any], Collate]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(name)
    texts, labels = _text_columns(data)[:2], _labels(data, model.config.num_labels)
    encoded = tokenizer(*([str(text) for text in data[column]] for column in texts), truncation=True)
    rows = [{**{key: encoded[key][i] for key in encoded}, "labels": label} for i, label in enumerate(labels)]
    # alike in length: of a batch of unequal ones most would be padding
    return model, sorted(rows, key=lambda row: len(row["input_ids"])), _padded(tokenizer)


def _text(name: str, data: Any) -> tuple[nn.Module, Sequence[Any], Collate]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(name)
    tokens = [token for text in data[_text_columns(data)[0]] for token in tokenizer(text)["input_ids"]]
    length = min(getattr(model.config, "max_position_embeddings", 512), 512)
    rows = [tokens[i : i + length] for i in range(0, len(tokens) - length + 1, length)] or [tokens]

    def collate(batch: list[Any]) -> dict[str, Tensor]:
        return {"input_ids": torch.tensor(batch), "labels": torch.tensor(batch)}

    return model, [row for row in rows if len(row) > 1], collate


def _images(name: str, data: Any) -> tuple[nn.Module, Sequence[Any], Collate]:
    from datasets import Image
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    model = AutoModelForImageClassification.from_pretrained(name, dtype=torch.float32)
    processor = AutoImageProcessor.from_pretrained(name)
    columns = [column for column, feature in data.features.items() if isinstance(feature, Image)]
    if not columns:
        raise ValueError(f"dataset must have a column of images; got {data.column_names}")
    labels = _labels(data, model.config.num_labels)

    def collate(batch: list[tuple[Any, int]]) -> dict[str, Tensor]:
        pixels = processor([data[i][columns[0]].convert("RGB") for i, _ in batch], return_tensors="pt")["pixel_values"]
        return {"pixel_values": pixels, "labels": torch.tensor([label for _, label in batch])}

    return model, list(enumerate(labels)), collate


_TASKS: dict[str, Callable[[str, Any], tuple[nn.Module, Sequence[Any], Collate]]] = {
    "ForSequenceClassification": _sentences,
    "ForImageClassification": _images,
    "ForCausalLM": _text,
    "LMHeadModel": _text,
}


def _padded(tokenizer: Any) -> Collate:
    def collate(batch: list[Any]) -> dict[str, Tensor]:
        return dict(tokenizer.pad(batch, return_tensors="pt"))

    return collate


def _text_columns(data: Any) -> list[str]:
    columns = [name for name, feature in data.features.items() if getattr(feature, "dtype", None) == "string"]
    if not columns:
        raise ValueError(f"dataset must have a column of text; got {data.column_names}")
    return columns


def _labels(data: Any, classes: int) -> list[int]:
    column = next((name for name in LABELS if name in data.column_names), None)
    if column is None:
        raise ValueError(f"dataset must have its labels in one of {', '.join(LABELS)}; got {data.column_names}")
    labels = list(data[column])
    if wrong := [label for label in labels if not 0 <= label < classes]:
        raise ValueError(
            f"labels must lie in 0 to {classes - 1}, as the model's do; got {wrong[0]}. A test split may be without: "
            "take another by --split"
        )
    return labels


def load_split(dataset: str, config: str | None, split: str, samples: int | None) -> Any:
    """A split of a data set of the Hub's or in a folder, or its first examples.

    Raises:
        ValueError: no such split, or no examples in it.
    """
    from datasets import get_dataset_split_names, load_dataset

    where = str(Path(dataset)) if Path(dataset).exists() else dataset
    known = get_dataset_split_names(where, config)
    if split not in known:
        raise ValueError(f"--split must be one of {', '.join(known)}; got {split!r}")
    data = load_dataset(where, config, split=split)
    return data if samples is None else data.select(range(min(samples, len(data))))
