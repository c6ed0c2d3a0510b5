"""The images of a task, from the Hub, a local folder or the embedded scans, checked before anything is trained."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps
from datasets import ClassLabel, Dataset, DatasetDict, Image, load_dataset
from datasets.exceptions import DatasetGenerationError

from hf_winopt.public import public_name
from recipes.common import RecipeError
from recipes.vit import embedded

EMBEDDED = "embedded"
_IMAGES, _LABELS = ("image", "img"), ("label", "labels", "fine_label")
_VALIDATION = ("validation", "valid", "val")
_PLACE = "__place__"
_HELD_OUT_SEED = 0  # not the training's: whatever the seed, all are validated on the same images


@dataclass(frozen=True)
class Source:
    """Splits of labelled images, none of them empty.

    Args:
        name: of the data set, for errors.
        splits: `train`, `validation` and, where there is one, `test`; images are not decoded yet. A column `_PLACE`
            says where in the data set a row is from.
        image, label: names of the columns.
        classes: their names, in the order of the labels.
    """

    name: str
    splits: dict[str, Dataset]
    image: str
    label: str
    classes: list[str]

    def open(self, split: str, row: int) -> PIL.Image.Image:
        """An image, decoded, upright, in colours.

        Raises:
            RecipeError: it cannot be read.
        """
        found = self.splits[split][row]
        stored = found[self.image] or {"bytes": None, "path": None}
        data, path = stored["bytes"], stored["path"]
        try:
            if data is None and path is None:
                raise ValueError("there is none")
            image = PIL.Image.open(io.BytesIO(data) if data is not None else path)
            if image.mode.startswith("I;16"):  # Pillow would cut off what is more than a byte
                image = PIL.Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            return PIL.ImageOps.exif_transpose(image).convert("RGB")
        except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
            reason = "no image format is known" if isinstance(error, PIL.UnidentifiedImageError) else error
            where = f" ({Path(path).name})" if path else ""
            raise RecipeError(f"{self.name}, {found[_PLACE]}{where}: the image cannot be read: {reason}") from error


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
    if image == label:
        raise RecipeError(f"--image_column_name {image}: that is the labels' column")
    validation = next((split for split in _VALIDATION if split in data), None)
    splits = {}
    for split, found in (("train", "train"), ("validation", validation), ("test", "test")):
        if found in data and not (split == "test" and _is_unlabelled(data[found], label)):
            splits[split] = _numbered(_with_columns(data[found], image, label, f"{name}, {found}"), found)
    splits, classes = _with_classes(splits, label, name)
    for rows in splits.values():
        _check_labels(rows, label, classes, name)
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
            "says nothing about photographs.",
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


def _is_unlabelled(rows: Dataset, label: str) -> bool:
    """As test splits are whose labels are not public: ImageNet's has -1."""
    return label not in rows.column_names or all(value in (None, -1) for value in rows[label][:])


def _with_columns(rows: Dataset, image: str, label: str, where: str) -> Dataset:
    for wanted in (image, label):
        if wanted not in rows.column_names:
            raise RecipeError(f"{where}: no column {wanted!r} (there is {', '.join(rows.column_names)})")
    if not len(rows):
        raise RecipeError(f"{where}: no rows")
    kind = rows.features[image]
    if not isinstance(kind, Image) and not (isinstance(kind, dict) and {"bytes", "path"} <= set(kind)):
        raise RecipeError(f"{where}: {image!r} is no column of images: say which it is by --image_column_name")
    return rows.select_columns([image, label]).cast_column(image, Image(decode=False))


def _numbered(rows: Dataset, split: str) -> Dataset:
    return rows.add_column(_PLACE, [f"{split}, row {row}" for row in range(len(rows))])


def _with_classes(splits: dict[str, Dataset], label: str, name: str) -> tuple[dict[str, Dataset], list[str]]:
    """The names of the classes; labels that are words become numbers."""
    kind = splits["train"].features[label]
    if isinstance(kind, ClassLabel):
        return splits, list(kind.names)
    words = getattr(kind, "dtype", None) in ("string", "large_string")
    for rows in splits.values():
        for place, value in zip(rows[_PLACE][:], rows[label][:]):
            if not isinstance(value, str if words else int):
                wanted = "a word" if words else "a whole number or a word"
                raise RecipeError(f"{name}, {place}: the label must be {wanted}, not {str(value)[:40]}")
    labels = splits["train"][label][:]
    if not words:
        return splits, [str(number) for number in range(max(labels) + 1)]
    classes = sorted(set(labels))
    for rows in splits.values():
        for place, word in zip(rows[_PLACE][:], rows[label][:]):
            if word not in classes:
                raise RecipeError(f"{name}, {place}: the label is {word!r}, which no training row has")
    return {split: rows.cast_column(label, ClassLabel(names=classes)) for split, rows in splits.items()}, classes


def _check_labels(rows: Dataset, label: str, classes: list[str], name: str) -> None:
    labels = np.array([-1 if value is None else value for value in rows[label][:]])
    wrong = (labels < 0) | (labels >= len(classes))
    if wrong.any():
        row = rows[int(wrong.argmax())]
        raise RecipeError(f"{name}, {row[_PLACE]}: labels go from 0 to {len(classes) - 1}, this one is {row[label]}")


def _hold_out(splits: dict[str, Dataset], label: str, share: float) -> dict[str, Dataset]:
    rows = splits["train"]
    by_class = {"stratify_by_column": label} if isinstance(rows.features[label], ClassLabel) else {}
    try:
        parts = rows.train_test_split(share, seed=_HELD_OUT_SEED, **by_class)
    except ValueError as error:
        raise RecipeError(f"--train_val_split {share}: {error}") from error
    return {**splits, "train": parts["train"], "validation": parts["test"]}
