"""The images of a task, from the Hub, a local folder or the embedded scans, checked before anything is trained."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from datasets import ClassLabel, Dataset, DatasetDict, Image, load_dataset
from datasets.exceptions import DatasetGenerationError

from hf_winopt.public import public_name
from recipes.common import RecipeError
from recipes.vit import embedded

EMBEDDED = "embedded"
_IMAGES, _LABELS = ("image", "img"), ("label", "labels", "fine_label")
_VALIDATION = ("validation", "valid", "val")
_HELD_OUT_SEED = 0  # not the training's: whatever the seed, all are validated on the same images


@dataclass(frozen=True)
class Source:
    """Splits of labelled images, none of them empty.

    Args:
        name: of the data set, for errors.
        splits: `train`, `validation` and, where there is one, `test`; images are not decoded yet.
        image, label: names of the columns.
        classes: their names, in the order of the labels.
    """

    name: str
    splits: dict[str, Dataset]
    image: str
    label: str
    classes: list[str]

    def open(self, split: str, row: int) -> PIL.Image.Image:
        """An image, decoded, in colours.

        Raises:
            RecipeError: it cannot be read.
        """
        stored = self.splits[split][row][self.image]
        try:
            data = stored["bytes"]
            return PIL.Image.open(io.BytesIO(data) if data is not None else stored["path"]).convert("RGB")
        except (AttributeError, OSError, SyntaxError, TypeError, ValueError, PIL.Image.DecompressionBombError) as error:
            raise RecipeError(f"{self.name}, {split}: the image of row {row} cannot be read: {error}") from error


def load(
    name: str,
    config: str | None,
    *,
    data_dir: str | None = None,
    image: str | None = None,
    label: str | None = None,
    held_out: float = 0.1,
) -> Source:
    """Find the splits, the columns and the classes.

    Args:
        name, config, data_dir: as `datasets.load_dataset` takes them, or `embedded`.
        image, label: columns; found by their usual names unless given.
        held_out: share of the training images to validate on, where there is no validation split.

    Raises:
        RecipeError: it cannot be read, or something is missing in it.
    """
    data = embedded.load() if name == EMBEDDED else _load(name, config, data_dir)
    if "train" not in data:
        raise RecipeError(f"{name}: no split 'train' (there is {', '.join(data)})")
    image = _column(data["train"], name, "--image_column_name", image, _IMAGES)
    label = _column(data["train"], name, "--label_column_name", label, _LABELS)
    splits = {"train": data["train"]}
    validation = next((split for split in _VALIDATION if split in data), None)
    for split, found in (("validation", validation), ("test", "test" if "test" in data else None)):
        if found is not None:
            for wanted in (image, label):
                if wanted not in data[found].column_names:
                    raise RecipeError(
                        f"{name}, {found}: no column {wanted!r} (there is {', '.join(data[found].column_names)})"
                    )
            if set(data[found][label][:1]) != {-1}:  # as in ImageNet's test split, whose labels are not public
                splits[split] = data[found]
    for split, rows in splits.items():
        if not len(rows):
            raise RecipeError(f"{name}, {split}: no rows")
    splits, classes = _with_classes(splits, label, name)
    for split, rows in splits.items():
        _check_labels(rows, label, classes, f"{name}, {split}")
        splits[split] = rows.select_columns([image, label]).cast_column(image, Image(decode=False))
    if "validation" not in splits:
        splits = _hold_out(splits, label, held_out)
    return Source(name, splits, image, label, classes)


def describe(name: str, config: str | None, data_dir: str | None) -> dict[str, Any]:
    """What results and model card say about the data."""
    if name == EMBEDDED:
        return {
            "name": EMBEDDED,
            "source": EMBEDDED,
            "title": "scikit-learn's digits",
            "language": "en",
            "description": "**Trained on scikit-learn's digits**: 1,797 scans of handwritten digits, 8 x 8 pixels. It "
            "shows that the training works, and says nothing about photographs.",
        }
    if data_dir is not None:
        name = data_dir
    local = Path(name).is_dir()
    shown = public_name(name)
    return {
        "name": shown,
        "config": config,
        "source": "local" if local else "hub",
        "title": shown.rpartition("/")[2],
        "language": "en",
        "description": f"An image classifier trained on {'a local folder, ' if local else ''}`{shown}`.",
    }


def _load(name: str, config: str | None, data_dir: str | None) -> DatasetDict:
    if not Path(name).is_dir() and (name.startswith((".", "~", os.sep)) or name.count("/") > 1):
        raise RecipeError(f"--dataset_name: no such folder: {name}")
    if data_dir is not None and not Path(data_dir).is_dir():
        raise RecipeError(f"--data_dir: no such folder: {data_dir}")
    try:
        return load_dataset(name, config, data_dir=data_dir)
    except (DatasetGenerationError, OSError, ValueError) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise RecipeError(
            f"cannot load {name!r}: {reason}\n"
            "Without the network, give a local folder (--dataset_name FOLDER) or the built-in scans "
            f"(--dataset_name {EMBEDDED})."
        ) from error


def _column(data: Dataset, name: str, argument: str, wanted: str | None, usual: tuple[str, ...]) -> str:
    names = (wanted,) if wanted is not None else usual
    found = next((column for column in names if column in data.column_names), None)
    if found is None:
        raise RecipeError(
            f"{name}: no column {' or '.join(map(repr, names))} (there is {', '.join(data.column_names)}): "
            f"say which it is by {argument}"
        )
    return found


def _with_classes(splits: dict[str, Dataset], label: str, name: str) -> tuple[dict[str, Dataset], list[str]]:
    """The names of the classes; labels that are words become numbers."""
    feature = splits["train"].features[label]
    if isinstance(feature, ClassLabel):
        return splits, list(feature.names)
    if getattr(feature, "dtype", None) == "string":
        classes = sorted(set(splits["train"][label][:]))
        for split, rows in splits.items():
            for row, word in enumerate(rows[label][:]):
                if word not in classes:
                    raise RecipeError(f"{name}, {split}: row {row} has the label {word!r}, which no training row has")
        numbers = ClassLabel(names=classes)
        return {split: rows.cast_column(label, numbers) for split, rows in splits.items()}, classes
    labels = splits["train"][label][:]
    if not all(isinstance(value, int) for value in labels):
        raise RecipeError(f"{name}: {label!r} must hold whole numbers or words, not {labels[0]!r}")
    return splits, [str(number) for number in range(max(labels) + 1)]


def _check_labels(rows: Dataset, label: str, classes: list[str], where: str) -> None:
    labels = np.array([-1 if value is None else value for value in rows[label][:]])
    wrong = (labels < 0) | (labels >= len(classes))
    if wrong.any():
        row = int(wrong.argmax())
        raise RecipeError(f"{where}: labels go from 0 to {len(classes) - 1}, row {row} has {rows[row][label]}")


def _hold_out(splits: dict[str, Dataset], label: str, share: float) -> dict[str, Dataset]:
    rows = splits["train"]
    by_class = {"stratify_by_column": label} if isinstance(rows.features[label], ClassLabel) else {}
    try:
        parts = rows.train_test_split(share, seed=_HELD_OUT_SEED, **by_class)
    except ValueError as error:
        raise RecipeError(f"--train_val_split {share}: {error}") from error
    return {**splits, "train": parts["train"], "validation": parts["test"]}
