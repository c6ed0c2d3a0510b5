"""Where images come from, what can be wrong with them, and how batches are read."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as Pillow
from torch.utils.data import DataLoader

pytest.importorskip("kornia")

from recipes.common import RecipeError
from recipes.vit import sources
from recipes.vit.images import Images, Order, collate

CLASSES = ["cat", "dog", "owl"]


def picture(number: int, width: int = 12, height: int = 12) -> bytes:
    """A picture that tells its number: its red is that, everywhere."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[..., 0] = number
    pixels[: height // 2, :, 1] = 255
    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def table(images: list[bytes | None], labels: list[int], **columns: str) -> Dataset:
    """Stored labels are not checked by `datasets`, so some may be out of range."""
    image, label = columns.get("image", "image"), columns.get("label", "label")
    plain = Features({image: {"bytes": Value("binary"), "path": Value("string")}, label: Value("int64")})
    rows = {image: [{"bytes": data, "path": None} for data in images], label: labels}
    wanted = Features({image: Image(decode=False), label: ClassLabel(names=CLASSES)})
    return Dataset.from_dict(rows, features=plain).with_format("arrow").cast(plain).with_format(None).cast(wanted)


def save(folder: Path, **splits: Dataset) -> str:
    for split, rows in splits.items():
        rows.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return str(folder)


def thirty(**columns: str) -> Dataset:
    return table([picture(n) for n in range(30)], [n % 3 for n in range(30)], **columns)


# ---------------------------------------------------------------------------------------------------- sources


def test_validation_is_held_out_of_training_whatever_the_seed(tmp_path):
    folder = save(tmp_path, train=thirty(), test=thirty())
    first, second = (sources.load(folder, None, held_out=0.2) for _ in range(2))
    assert first.classes == CLASSES
    assert {split: len(rows) for split, rows in first.splits.items()} == {"train": 24, "validation": 6, "test": 30}
    assert first.splits["validation"]["label"][:] == second.splits["validation"]["label"][:]
    assert np.bincount(first.splits["validation"]["label"][:]).tolist() == [2, 2, 2]
    numbers = {split: {first.open(split, row).getpixel((0, 0))[0] for row in range(6)} for split in first.splits}
    assert not numbers["train"] & numbers["validation"]


@pytest.mark.parametrize("name", ["validation", "valid"])
def test_a_validation_split_is_taken(name, tmp_path):
    source = sources.load(save(tmp_path, train=thirty(), **{name: table([picture(1)], [0])}), None)
    assert {split: len(rows) for split, rows in source.splits.items()} == {"train": 30, "validation": 1}


@pytest.mark.parametrize("columns", [{"image": "img"}, {"label": "labels"}, {"image": "img", "label": "fine_label"}])
def test_usual_names_of_columns_are_found(columns, tmp_path):
    source = sources.load(save(tmp_path, train=thirty(**columns)), None)
    assert (source.image, source.label) == (columns.get("image", "image"), columns.get("label", "label"))


def test_folder_of_images(tmp_path):
    for number in range(12):
        folder = tmp_path / "train" / CLASSES[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(picture(number))
    for name, data_dir in (("imagefolder", str(tmp_path)), (str(tmp_path), None)):
        source = sources.load(name, None, data_dir=data_dir, held_out=0.25)
        assert source.classes == CLASSES
        row = source.splits["train"][0]
        assert source.open("train", 0).getpixel((0, 0))[0] % 3 == row["label"]
    assert sources.describe("imagefolder", None, str(tmp_path))["name"] == tmp_path.name


def test_labels_that_are_words(tmp_path):
    rows = thirty().cast_column("label", Value("int64")).to_dict()
    rows["label"] = [CLASSES[label] for label in rows["label"]]
    words = Dataset.from_dict(rows).cast_column("image", Image(decode=False))
    source = sources.load(save(tmp_path, train=words), None)
    assert source.classes == CLASSES
    assert set(source.splits["train"]["label"][:]) == {0, 1, 2}
    odd = words.select(range(2)).map(lambda row: {**row, "label": "emu"})
    with pytest.raises(RecipeError, match=r"test, row 0: the label is 'emu', which no training row has"):
        sources.load(save(tmp_path, train=words, test=odd), None)


def test_unlabelled_test_split_is_left_out(tmp_path):
    for number, labels in enumerate(([-1, -1], [None, None])):
        (tmp_path / str(number)).mkdir()
        folder = save(tmp_path / str(number), train=thirty(), test=table([picture(0)] * 2, labels))
        assert "test" not in sources.load(folder, None).splits


def test_rows_are_named_by_their_place_in_the_data_set(tmp_path):
    """Also those that are validated on, which are drawn from all over the training images."""
    images = [picture(n) if n != 7 else b"no picture" for n in range(30)]
    source = sources.load(save(tmp_path, train=table(images, [n % 3 for n in range(30)])), None, held_out=0.5)
    with pytest.raises(RecipeError, match=r"train, row 7: the image cannot be read"):
        for split, rows in source.splits.items():
            for row in range(len(rows)):
                source.open(split, row)


def test_a_file_that_is_no_image_is_named(tmp_path):
    for number in range(4):
        folder = tmp_path / "train" / CLASSES[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(picture(number) if number else b"no picture")
    source = sources.load(str(tmp_path), None, held_out=0.5)
    with pytest.raises(RecipeError, match=r"\(0\.png\): the image cannot be read: no image format is known"):
        for split in source.splits:
            for row in (0, 1):
                source.open(split, row)


@pytest.mark.parametrize("labels", [["a", None, "b"], [0, None, 1], [0.5, 1.5, 0.0], [[1], [0], [1]]])
def test_labels_that_are_none(labels, tmp_path):
    rows = {"image": [{"bytes": picture(n), "path": None} for n in range(3)], "label": labels}
    folder = save(tmp_path, train=Dataset.from_dict(rows).cast_column("image", Image(decode=False)))
    with pytest.raises(RecipeError, match=r"train, row \d: the label must be a w"):
        sources.load(folder, None)


def test_columns_that_are_something_else(tmp_path):
    folder = save(tmp_path, train=thirty())
    with pytest.raises(RecipeError, match="--image_column_name label: that is the labels' column"):
        sources.load(folder, None, image="label")
    numbers = Dataset.from_dict({"image": [[1, 2], [3, 4]], "label": [0, 1]})
    (tmp_path / "numbers").mkdir()
    with pytest.raises(RecipeError, match="'image' is no column of images"):
        sources.load(save(tmp_path / "numbers", train=numbers), None)


def test_a_missing_column_is_named(tmp_path):
    folder = save(tmp_path, train=thirty(image="photo"))
    with pytest.raises(RecipeError, match=r"no column 'image' or 'img' \(there is photo, label\).*--image_column_name"):
        sources.load(folder, None)
    assert sources.load(folder, None, image="photo").image == "photo"
    with pytest.raises(RecipeError, match=r"no column 'kind' .*--label_column_name"):
        sources.load(folder, None, image="photo", label="kind")


@pytest.mark.parametrize("label", [3, -1, 255])
def test_a_label_out_of_range_is_named_by_its_row(label, tmp_path):
    labels = [0, 1, 2, 0, label, 1]
    folder = save(tmp_path, train=table([picture(n) for n in range(6)], labels))
    with pytest.raises(RecipeError, match=rf"train, row 4: labels go from 0 to 2, this one is {label}"):
        sources.load(folder, None)


def test_what_cannot_be_loaded(tmp_path, monkeypatch):
    with pytest.raises(RecipeError, match=r"no such folder: \./nowhere"):
        sources.load("./nowhere", None)
    with pytest.raises(RecipeError, match="--data_dir: no such folder"):
        sources.load("imagefolder", None, data_dir=str(tmp_path / "none"))
    with pytest.raises(RecipeError, match="no split 'train'"):
        sources.load(save(tmp_path, test=thirty()), None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(RecipeError, match=r"cannot load 'some/thing'.*\n.*--dataset_name embedded"):
        sources.load("some/thing", None)


# ----------------------------------------------------------------------------------------------------- images


def source_of(images: list[bytes | None], labels: list[int] | None = None) -> sources.Source:
    rows = sources._numbered(table(images, labels or [0] * len(images)), "train")
    return sources.Source("pictures", {"train": rows, "validation": rows}, "image", "label", CLASSES)


def reds(batch: dict[str, torch.Tensor]) -> list[int]:
    return batch["pixel_values"][:, 0].flatten(1).float().mean(1).round().int().tolist()


@pytest.mark.parametrize("data", [b"no picture", picture(3)[:60], b"", None], ids=["text", "half", "empty", "none"])
@pytest.mark.parametrize("size", [12, 8], ids=["kept", "read"])
def test_an_unreadable_image_is_named_by_its_row(data, size):
    source = source_of([picture(0), picture(1), data, picture(3)])
    with pytest.raises(RecipeError, match="pictures, train, row 2: the image cannot be read"):
        Images(source, "train", size).__getitems__([1, 2])


def test_a_loading_process_says_no_more_about_it():
    images = Images(source_of([picture(0), b"no picture"]), "train", 8)
    with pytest.raises(RecipeError) as caught:
        list(DataLoader(images, 2, collate_fn=collate, num_workers=1))
    assert str(caught.value).startswith("pictures, train, row 1: the image cannot be read: no image format")
    assert "Traceback" not in str(caught.value)


def test_small_images_are_kept_and_others_read():
    source = source_of([picture(n) for n in range(5)])
    assert Images(source, "train", 12).kept is not None
    assert Images(source, "train", 12, scale=(0.5, 1.0), seed=0).crops_later
    for other in (Images(source, "train", 8), Images(source, "train", 12, crop_pct=0.5), Images(source, "train", 16)):
        assert other.kept is None
        assert other.__getitems__([0])["pixel_values"].shape == (1, 3, other.size, other.size)
    assert Images(source, "train", 12, keep=100).kept is None
    mixed = Images(source_of([picture(0), picture(1, 20, 12)]), "train", 12)
    assert mixed.kept is None and reds(mixed.__getitems__([1, 0])) == [1, 0]


def test_evaluation_takes_the_middle():
    pixels = np.zeros((10, 20, 3), dtype=np.uint8)
    pixels[:, 5:15] = 200
    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, "PNG")
    whole = Images(source_of([file.getvalue()]), "train", 10).__getitems__([0])["pixel_values"]
    assert (whole == 200).all()
    part = Images(source_of([file.getvalue()]), "train", 10, crop_pct=0.8).__getitems__([0])["pixel_values"]
    assert ((part >= 199) & (part <= 201)).all()


def test_photographs_are_upright():
    """A camera that was held sideways says so in the file."""
    file, orientation = io.BytesIO(), Pillow.Exif()
    orientation[0x0112] = 6
    Pillow.new("RGB", (20, 10)).save(file, "JPEG", exif=orientation)
    assert source_of([file.getvalue()]).open("train", 0).size == (10, 20)


def test_sixteen_bits_are_read_as_eight():
    file = io.BytesIO()
    Pillow.fromarray(np.full((6, 6), 90 * 256, dtype=np.uint16)).save(file, "PNG")
    assert reds(Images(source_of([file.getvalue()]), "train", 6).__getitems__([0])) == [90]


def test_grey_and_transparent_images_are_read_in_colours():
    files = []
    for mode in ("L", "RGBA", "P", "LA"):
        file = io.BytesIO()
        Pillow.new("L", (6, 6), 90).convert(mode).save(file, "PNG")
        files.append(file.getvalue())
    assert reds(Images(source_of(files), "train", 6).__getitems__([0, 1, 2, 3])) == [90] * 4


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("size", [12, 8], ids=["kept", "read"])
def test_a_loader_s_batches_are_those_of_the_images(workers, size):
    images = Images(source_of([picture(n) for n in range(10)], [n % 3 for n in range(10)]), "train", size, seed=1)
    loader = DataLoader(images, 4, sampler=Order(images, 0), collate_fn=collate, num_workers=workers)
    for epoch in (0, 1):
        images.set_epoch(epoch)
        order = list(Order(images, 0))
        assert sorted(order) == list(range(10))
        read = list(loader)
        assert [n for batch in read for n in reds(batch)] == order
        assert torch.cat([batch["labels"] for batch in read]).tolist() == [n % 3 for n in order]
        assert np.array_equal(np.concatenate([batch["noise"] for batch in read]), images.__getitems__(order)["noise"])


def test_epochs_have_orders_and_random_numbers_of_their_own():
    images = Images(source_of([picture(n) for n in range(10)]), "train", 12, seed=1)
    first, noise = list(Order(images, 0)), images.__getitems__([4])["noise"]
    images.set_epoch(1)
    assert list(Order(images, 0)) != first and not np.array_equal(images.__getitems__([4])["noise"], noise)
    images.set_epoch(0)
    assert list(Order(images, 0)) == first and np.array_equal(images.__getitems__([4])["noise"], noise)
    assert list(Order(images, 1)) != first


def test_repeats_are_the_same_image_with_other_numbers():
    images = Images(source_of([picture(n) for n in range(10)]), "train", 12, seed=1)
    order = list(Order(images, 0, repeats=3))
    assert len(order) == len(Order(images, 0, repeats=3)) == 10
    batch = images.__getitems__(order)
    numbers = reds(batch)
    assert [numbers[i] for i in (0, 3, 6)] == [numbers[i] for i in (2, 5, 8)] and len(set(numbers)) == 4
    assert len(np.unique(batch["noise"][:, 0])) == 10


def test_digits():
    source = sources.load(sources.EMBEDDED, None)
    assert {split: len(rows) for split, rows in source.splits.items()} == {
        "train": 1293,
        "validation": 144,
        "test": 360,
    }
    assert source.classes == [str(digit) for digit in range(10)]
    assert source.open("train", 0).size == (8, 8)
