"""Where in its image a training crop lies; and cutting it out of a whole batch."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from recipes.vit.noise import Noise, column, sent

RATIO = (3 / 4, 4 / 3)


def crop_boxes(noise: Noise, height: int, width: int, scale: tuple[float, float]) -> Tensor:
    """A random part of each image, of random area and shape: (N, 4), as left, top, right, bottom in pixels.

    Args:
        noise: of the images, by `noise.draw`.
        height, width: of the images.
        scale: the least and the greatest share of the image's area; width to height is within `RATIO`, its logarithm
            uniform, but a crop is never wider or higher than the image.
    """
    area = height * width * (scale[0] + (scale[1] - scale[0]) * column(noise, "crop_area"))
    low, high = (math.log(ratio) for ratio in RATIO)
    ratio = torch.exp(low + (high - low) * column(noise, "crop_ratio"))
    w = (area * ratio).sqrt().clamp(max=width)
    h = (area / ratio).sqrt().clamp(max=height)
    left, top = column(noise, "crop_x") * (width - w), column(noise, "crop_y") * (height - h)
    return torch.stack((left, top, left + w, top + h), dim=1)


def cut(images: Tensor, boxes: Tensor, size: int) -> Tensor:
    """The boxes of a batch (N, C, H, W), each `size` x `size`; for boxes that are not much larger than that."""
    height, width = images.shape[-2:]
    left, top, right, bottom = (boxes / torch.tensor([width, height, width, height])).unbind(1)
    zero = torch.zeros_like(left)
    # In the coordinates of `affine_grid`, where an image reaches from -1 to 1.
    theta = torch.stack(
        (
            torch.stack((right - left, zero, left + right - 1), dim=1),
            torch.stack((zero, bottom - top, top + bottom - 1), dim=1),
        ),
        dim=1,
    )
    grid = F.affine_grid(sent(theta, images), [len(images), images.shape[1], size, size], align_corners=False)
    cropped = F.grid_sample(images, grid, mode="bicubic", padding_mode="reflection", align_corners=False)
    return cropped.clamp_(0, 1)


def flip(images: Tensor, noise: Noise) -> Tensor:
    """Half of the images, mirrored from left to right."""
    flipped = sent(column(noise, "flip") < 0.5, images)
    return torch.where(flipped.view(-1, 1, 1, 1), images.flip(-1), images)
