"""From the bytes of a batch to what a model is trained on: all of it on tensors, on the device of the batch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from kornia import enhance
from torch import Tensor

from recipes.vit import geometry
from recipes.vit.mixing import mix
from recipes.vit.noise import Noise, column, sent
from recipes.vit.rand_augment import RandAugment

ERASED_AREA = (0.02, 1 / 3)
_ERASED_RATIO = (0.3, 1 / 0.3)


@dataclass(frozen=True)
class Normalize:
    """Bytes to floats of mean 0 and standard deviation 1, for each channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """Of images in [0, 1]."""
        mean, std = (sent(torch.tensor(values), images).view(-1, 1, 1) for values in (self.mean, self.std))
        return (images - mean) / std


@dataclass(frozen=True)
class Augment:
    """What is done to a training batch, in this order. The defaults do nothing.

    Args:
        normalize: the last thing done to every image.
        size: side of an image in pixels.
        scale: the least and the greatest share of an image that a random crop keeps.
        hflip: mirror every second image.
        jitter: brightness, contrast and saturation change by a factor of 1 - jitter to 1 + jitter.
        rand_augment: as in its own module; None for none.
        erasing: share of the images from which a rectangle is erased.
        mixup, cutmix: as in `mixing.mix`.
    """

    normalize: Normalize
    size: int
    scale: tuple[float, float] | None = None
    hflip: bool = False
    jitter: float = 0.0
    rand_augment: RandAugment | None = field(default=None)
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    @torch.no_grad()
    def __call__(self, images: Tensor, labels: Tensor, noise: Noise, classes: int) -> tuple[Tensor, Tensor]:
        """A training batch.

        Args:
            images: uint8 (N, 3, H, W); cropped here, unless they are of the right size and `scale` is None.
            labels: int64 (N,).
            noise: of the images, by `noise.draw`.
            classes: number of them.

        Returns:
            float32 (N, 3, size, size), and targets (N, classes), which sum to 1.
        """
        with torch.autocast(images.device.type, enabled=False):  # half a precision would blur where pixels are
            return self._augmented(images, labels, noise, classes)

    def plain(self, images: Tensor) -> Tensor:
        """The images of an evaluation, uint8 (N, 3, size, size), as floats."""
        return self.normalize(images.float() / 255)

    def _augmented(self, images: Tensor, labels: Tensor, noise: Noise, classes: int) -> tuple[Tensor, Tensor]:
        x = images.float() / 255
        if self.scale is not None:
            x = geometry.cut(x, geometry.crop_boxes(noise, *x.shape[-2:], self.scale), self.size)
        if self.hflip:
            x = geometry.flip(x, noise)
        if self.jitter:
            x = self._jittered(x, noise)
        if self.rand_augment is not None:
            x = self.rand_augment(x, noise)
        x = self.normalize(x)
        if self.erasing:
            x = self._erased(x, noise)
        return mix(x, F.one_hot(labels, classes).to(x), noise, self.mixup, self.cutmix)

    def _jittered(self, x: Tensor, noise: Noise) -> Tensor:
        for name, change in (
            ("brightness", enhance.adjust_brightness_accumulative),
            ("contrast", enhance.adjust_contrast_with_mean_subtraction),
            ("saturation", enhance.adjust_saturation_with_gray_subtraction),
        ):
            x = change(x, 1 + self.jitter * (2 * sent(column(noise, name), x) - 1))
        return x

    def _erased(self, x: Tensor, noise: Noise) -> Tensor:
        """A rectangle of the mean colour, somewhere inside (Zhong et al. 2020)."""
        height, width = x.shape[-2:]
        area = height * width * (ERASED_AREA[0] + (ERASED_AREA[1] - ERASED_AREA[0]) * column(noise, "erased_area"))
        low, high = (math.log(ratio) for ratio in _ERASED_RATIO)
        ratio = torch.exp(low + (high - low) * column(noise, "erased_ratio"))
        h, w = (area * ratio).sqrt().clamp(max=height), (area / ratio).sqrt().clamp(max=width)
        top, left = column(noise, "erased_y") * (height - h), column(noise, "erased_x") * (width - w)
        h[column(noise, "erased") >= self.erasing] = 0
        edges = sent(torch.stack((top, top + h, left, left + w), dim=1), x).unsqueeze(2)
        rows, columns = torch.arange(height, device=x.device) + 0.5, torch.arange(width, device=x.device) + 0.5
        inside_rows = (rows >= edges[:, 0]) & (rows < edges[:, 1])
        inside_columns = (columns >= edges[:, 2]) & (columns < edges[:, 3])
        return x.masked_fill((inside_rows.unsqueeze(2) & inside_columns.unsqueeze(1)).unsqueeze(1), 0.0)
