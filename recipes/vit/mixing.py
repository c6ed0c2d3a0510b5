"""Mixup and CutMix: every image of a batch with a part of another one, and its target with as much of the other's.

Kornia's mixup draws the shares uniformly; the papers' are of a Beta distribution.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from recipes.vit.noise import Noise, column


def mix(
    images: Tensor, targets: Tensor, noise: Noise, mixup: float, cutmix: float, switch: float = 0.5
) -> tuple[Tensor, Tensor]:
    """Mix each image with the one opposite to it in the batch.

    Args:
        images: (N, C, H, W).
        targets: (N, classes), each row with the sum 1.
        noise: of the images; the first image's decides for the batch.
        mixup: alpha of mixup's Beta distribution (Zhang et al. 2018); 0 for none.
        cutmix: alpha of CutMix's (Yun et al. 2019); 0 for none.
        switch: where both are given, how often it is CutMix.
    """
    if mixup <= 0 and cutmix <= 0:
        return images, targets
    random = np.random.default_rng(int(float(column(noise, "mix")[0]) * 2**24))
    cutting = cutmix > 0 and (mixup <= 0 or random.random() < switch)
    alpha = cutmix if cutting else mixup
    share = random.beta(alpha, alpha)
    if cutting:
        height, width = images.shape[-2:]
        side = (1 - share) ** 0.5
        y, x = random.integers(height), random.integers(width)  # the middle of what is cut: at a border it is less
        top, bottom = _span(y, side * height, height)
        left, right = _span(x, side * width, width)
        other = images.flip(0)[..., top:bottom, left:right]
        images = images.clone()
        images[..., top:bottom, left:right] = other
        share = 1 - (bottom - top) * (right - left) / (height * width)
    else:
        images = images * share + images.flip(0) * (1 - share)
    return images, targets * share + targets.flip(0) * (1 - share)


def _span(middle: int, length: float, limit: int) -> tuple[int, int]:
    half = int(length) // 2
    return max(middle - half, 0), min(middle + half, limit)
