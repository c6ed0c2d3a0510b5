"""The random numbers of an augmented image, drawn from the seed, the epoch and the image's own number.

They come with the image. So a training sees the same images however they are shared out to devices, accumulated parts
and loading processes, and when it goes on from a checkpoint.

They are numpy's, which Accelerate leaves where they are: what is done to which image is decided on the CPU, and nothing
is read back from a GPU.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

COLUMNS = (
    *("crop_area", "crop_ratio", "crop_y", "crop_x", "flip"),
    *("brightness", "contrast", "saturation"),
    *(f"{what}_{number}" for number in (1, 2, 3) for what in ("operation", "used", "level", "sign")),
    *("erased", "erased_area", "erased_ratio", "erased_y", "erased_x"),
    "mix",
)
"""What each number is for."""

_NUMBER = {name: column for column, name in enumerate(COLUMNS)}


Noise = npt.NDArray[np.float32]


def draw(seed: int, epoch: int, numbers: Iterable[int]) -> Noise:
    """Uniform in [0, 1): a row for each image, a column for each of `COLUMNS`."""
    rows = [
        np.random.Generator(np.random.Philox(key=[seed, epoch], counter=[0, 0, 0, number])).random(len(COLUMNS))
        for number in numbers
    ]
    return np.minimum(np.stack(rows).astype(np.float32), np.float32(1 - 2**-24))


def column(noise: Noise, name: str) -> Tensor:
    """One of `COLUMNS`, for all images: float32 (N,), on the CPU."""
    return torch.from_numpy(noise[:, _NUMBER[name]])


def sent(values: Tensor, images: Tensor) -> Tensor:
    """Small values to where the images are, without waiting until they are there."""
    return values.to(images.device, non_blocking=True)
