"""The data of a task, from the Hub, a local folder or the embedded generator, checked before anything is trained."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict, load_dataset
from datasets.exceptions import DatasetGenerationError

from recipes.common import RecipeError
from recipes.glue import embedded
from recipes.glue.tasks import Task

EMBEDDED = "embedded"


def load_task(task: Task, source: str) -> DatasetDict:
    """The training set and the validation sets of `task`, with at least its text columns and `label`."""
    splits = ("train", *task.validation)
    if source == EMBEDDED:
        if task.name != "cola":
            raise RecipeError(f"the embedded data set is in CoLA's format: it has no {task.name}, only cola")
        data = embedded.load()
    elif Path(source).is_dir():
        data = _from_folder(Path(source), task, splits)
    elif source.startswith((".", "~", os.sep)) or source.count("/") > 1:
        raise RecipeError(f"--dataset_name: no such folder: {source}")
    else:
        data = _from_hub(source, task, splits)
    for split in splits:
        _check(data[split], split, task)
    return data


def describe_source(task: Task, source: str) -> dict[str, Any]:
    """What results and model card say about the data."""
    if source == EMBEDDED:
        return {
            "name": EMBEDDED,
            "source": EMBEDDED,
            "title": "synthetic agreement pairs",
            "language": "en",
            "description": "**The data is synthetic**: short English sentences made by a grammar, with and without "
            "an agreement error, in the format of GLUE's CoLA. It is not CoLA, and these numbers cannot be "
            "compared with CoLA's.",
        }
    local = Path(source).is_dir()
    name = Path(source).resolve().name if local else source
    where = f"a local folder, `{name}`, in the layout of `nyu-mll/glue`" if local else f"`{name}`"
    return {
        "name": name,
        "config": task.name,
        "source": "local" if local else "hub",
        "title": f"GLUE {task.title}",
        "language": "en",
        "description": f"A sequence classifier fine-tuned on GLUE's {task.title}, from {where}, and scored on the "
        "validation data.",
    }


def _from_folder(folder: Path, task: Task, splits: tuple[str, ...]) -> DatasetDict:
    home = folder / task.name
    if not home.is_dir():
        present = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_dir())) or "nothing"
        raise RecipeError(f"{folder} has no folder {task.name}/ (it has {present})")
    files = {split: sorted(str(path) for path in home.glob(f"{split}[-.]*parquet")) for split in splits}
    for split, found in files.items():
        if not found:
            raise RecipeError(f"{home} has no {split}-*.parquet")
    try:
        # One by one: together, all would be cast to the column types of the first.
        return DatasetDict(
            {split: load_dataset("parquet", data_files={split: files[split]}, split=split) for split in splits}
        )
    except (DatasetGenerationError, OSError, ValueError) as error:
        raise RecipeError(f"cannot read {home}: {error.__cause__ or error}") from error


def _from_hub(name: str, task: Task, splits: tuple[str, ...]) -> DatasetDict:
    try:
        return DatasetDict(zip(splits, load_dataset(name, task.name, split=list(splits)), strict=True))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RecipeError(
            f"cannot load {task.name} of {name!r}: {reason}\n"
            "Without the network, give a local copy (--dataset_name FOLDER) or the built-in data "
            f"(--task_name cola --dataset_name {EMBEDDED})."
        ) from error


def _check(data: Dataset, split: str, task: Task) -> None:
    missing = [column for column in (*task.columns, "label") if column not in data.column_names]
    if missing:
        raise RecipeError(
            f"{task.name}, {split}: no column {' and no column '.join(map(repr, missing))} "
            f"(there is {', '.join(data.column_names)})"
        )
    if not len(data):
        raise RecipeError(f"{task.name}, {split}: no rows")
    try:
        labels = np.asarray(data["label"][:], dtype=np.float64)
    except (TypeError, ValueError):
        raise RecipeError(f"{task.name}, {split}: labels must be numbers, not {data['label'][0]!r}") from None
    if (labels == -1).any():
        raise RecipeError(f"{task.name}, {split}: unlabelled rows (-1), as GLUE's test sets have them")
    lowest, highest = task.score_range or (0, task.num_labels - 1)
    wrong = ~((labels >= lowest) & (labels <= highest))  # so that nan is wrong too
    if not task.is_regression:
        wrong |= labels % 1 != 0
    if wrong.any():
        kind = "scores" if task.is_regression else "labels"
        row = int(wrong.argmax())
        raise RecipeError(
            f"{task.name}, {split}: {kind} go from {lowest:g} to {highest:g}, row {row} has {labels[row]:g}"
        )
