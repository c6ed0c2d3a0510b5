"""Images as a loader reads them: whole batches of bytes, all of one size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from recipes.vit import geometry, noise
from recipes.vit.sources import Source

Batch = dict[str, Any]


class Images(Dataset[Batch]):
    """Rows of `pixel_values`, uint8 (N, 3, H, W), `labels`, int64, and for training `noise`, by `noise.draw`.

    Small images of one size are decoded once and kept; they are cropped later, in whole batches. Others are read anew
    each time, and brought to their size as they are: JPEG files are read one by one.

    Args:
        source, split: where they are from.
        size: side of an image in pixels.
        scale: of random crops, as `geometry.crop_boxes` takes it; None for the middle of each image.
        crop_pct: how much of the shorter side the middle is.
        seed: of the random numbers; None for none.
        keep: bytes that decoded images may take.

    Raises:
        RecipeError: an image cannot be read; it is named by its row.
    """

    def __init__(
        self,
        source: Source,
        split: str,
        size: int,
        *,
        scale: tuple[float, float] | None = None,
        crop_pct: float = 1.0,
        seed: int | None = None,
        keep: float = 2 * 2**30,
    ) -> None:
        self.source, self.split = source, split
        self.size, self.scale, self.crop_pct, self.seed = size, scale, crop_pct, seed
        self.labels = torch.tensor(source.splits[split][source.label][:])
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # so that loading processes know it too
        self.kept = self._decoded(keep)

    @property
    def crops_later(self) -> bool:
        """Whether the crops of `scale` are still to be made of the batches."""
        return self.kept is not None and self.scale is not None

    def set_epoch(self, epoch: int) -> None:
        """Before an epoch is read: which it is, from 0."""
        self.epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, number: int) -> Batch:
        return {name: values[0] for name, values in self.__getitems__([number]).items()}

    def __getitems__(self, numbers: Sequence[int]) -> Batch:
        """A batch. Numbers beyond the rows mean them once more, with other random numbers."""
        rows = torch.tensor(numbers) % len(self)
        batch = {"labels": self.labels[rows]}
        if self.seed is not None:
            batch["noise"] = noise.draw(self.seed, int(self.epoch), numbers)
        if self.kept is not None:
            batch["pixel_values"] = self.kept[rows]
        else:
            draws = batch.get("noise", np.empty((len(rows), 0), dtype=np.float32))
            sized = [self._sized(row, draws[i : i + 1]) for i, row in enumerate(rows.tolist())]
            batch["pixel_values"] = torch.stack(sized)
        return batch

    def _sized(self, row: int, draws: noise.Noise) -> Tensor:
        image = self.source.open(self.split, row)
        if self.scale is not None:
            box = tuple(geometry.crop_boxes(draws, image.height, image.width, self.scale)[0].tolist())
        else:
            side = min(image.size) * self.crop_pct
            box = ((image.width - side) / 2, (image.height - side) / 2)
            box = (*box, box[0] + side, box[1] + side)
        return _bytes(image.resize((self.size, self.size), PIL.Image.Resampling.BICUBIC, box=box))

    def _decoded(self, limit: float) -> Tensor | None:
        """All images, if they have one size, are not larger than what is wanted of them, and there is room."""
        width, height = self.source.open(self.split, 0).size
        fits = max(width, height) <= self.size
        if self.scale is None:
            fits = width == height == self.size and self.crop_pct == 1
        if not fits or len(self) * 3 * width * height > limit:
            return None
        kept = torch.empty(len(self), 3, height, width, dtype=torch.uint8)
        for row in range(len(self)):
            image = self.source.open(self.split, row)
            if image.size != (width, height):
                return None
            kept[row] = _bytes(image)
        return kept


def _bytes(image: PIL.Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def collate(batch: Any) -> Any:
    """`Images` gives batches."""
    return batch


class Order(Sampler[int]):
    """A new order for each epoch, the same for a seed and an epoch whatever was drawn before.

    Args:
        images: whose epoch it is.
        seed: of the order.
        repeats: each image so many times in a row, with random numbers of its own each time, and only so many fewer
            images an epoch (repeated augmentation, Hoffer et al. 2020; Berman et al. 2019).
    """

    def __init__(self, images: Images, seed: int, repeats: int = 1) -> None:
        self.images, self.seed, self.repeats = images, seed, repeats

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[int]:
        count, epoch = len(self.images), int(self.images.epoch)
        order = np.random.default_rng([self.seed, epoch]).permutation(count)[: -(-count // self.repeats)]
        copies = order[:, None] + count * np.arange(self.repeats)
        yield from copies.ravel()[:count].tolist()
