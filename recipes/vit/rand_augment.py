"""RandAugment on a batch of tensors: every image has operations of its own, at levels of its own.

Kornia has the operations on pixels. Its own RandAugment draws one operation for a whole batch and has no noise in the
level; the ImageNet settings of the Win and Adan papers need both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from kornia import enhance
from kornia.geometry import transform
from torch import Tensor

from recipes.vit.noise import Noise, column, sent

_Operation = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of images in [0, 1], levels in [0, 1] and signs, +1 or -1."""


@dataclass(frozen=True)
class RandAugment:
    """RandAugment (Cubuk et al. 2020) with levels that grow stronger.

    Args:
        magnitude: the level, of 10.
        noise: standard deviation of the level.
        layers: operations an image, at most 3.
        probability: of each of them to be used at all.
    """

    magnitude: float = 7.0
    noise: float = 0.5
    layers: int = 2
    probability: float = 0.5

    def __call__(self, images: Tensor, noise: Noise) -> Tensor:
        """Of images in [0, 1], (N, 3, H, W), and their `noise.draw`, on any device; changes none in place."""
        for layer in range(1, self.layers + 1):
            chosen = (column(noise, f"operation_{layer}") * len(OPERATIONS)).long()
            chosen[column(noise, f"used_{layer}") >= self.probability] = -1
            normal = torch.special.ndtri(column(noise, f"level_{layer}").clamp(min=1e-6))
            level = ((self.magnitude + self.noise * normal) / 10).clamp(0, 1)
            sign = torch.where(column(noise, f"sign_{layer}") < 0.5, -1.0, 1.0)
            order = chosen.argsort()
            rows, levels, signs = (sent(values[order], images) for values in (torch.arange(len(order)), level, sign))
            images, first = images.clone(), int((chosen < 0).sum())
            for operation, count in zip(OPERATIONS.values(), chosen[chosen >= 0].bincount(minlength=len(OPERATIONS))):
                if count:
                    part = slice(first, first + int(count))
                    images[rows[part]] = operation(images[rows[part]], levels[part], signs[part])
                    first = part.stop
        return images


def _per_image(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def _auto_contrast(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    return torch.where(high > low, (images - low) / (high - low).clamp(min=1e-6), images)


def _solarize_add(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    return torch.where(images < 0.5, (images + _per_image(level) * 110 / 255).clamp(max=1), images)


def _factor(level: Tensor, sign: Tensor) -> Tensor:
    return 1 + sign * 0.9 * level


def _on_grey(move: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """What moves in from outside is grey."""
    return move(images - 0.5) + 0.5


def _rotate(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    return _on_grey(lambda centred: transform.rotate(centred, 30 * sign * level), images)


def _shear(x: float, y: float) -> _Operation:
    direction = (x, y)

    def shear(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
        amounts = (sign * level).unsqueeze(1) * sent(torch.tensor(direction), images)
        return _on_grey(lambda centred: transform.shear(centred, amounts), images)

    return shear


def _translate(x: float, y: float) -> _Operation:
    direction = (x, y)

    def translate(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
        side = torch.tensor([images.shape[-1], images.shape[-2]])
        amounts = (sign * level).unsqueeze(1) * sent(torch.tensor(direction) * side, images)
        return _on_grey(lambda centred: transform.translate(centred, amounts), images)

    return translate


OPERATIONS: dict[str, _Operation] = {
    "auto_contrast": _auto_contrast,
    "equalize": lambda images, level, sign: enhance.equalize(images),
    "invert": lambda images, level, sign: 1 - images,  # kornia's has a GPU wait for its 1
    "rotate": _rotate,
    "posterize": lambda images, level, sign: enhance.posterize(images, 4 - torch.floor(4 * level).int()),
    "solarize": lambda images, level, sign: enhance.solarize(images, 1 - level),
    "solarize_add": _solarize_add,
    "saturation": lambda images, level, sign: enhance.adjust_saturation_with_gray_subtraction(
        images, _factor(level, sign)
    ),
    "contrast": lambda images, level, sign: enhance.adjust_contrast_with_mean_subtraction(images, _factor(level, sign)),
    "brightness": lambda images, level, sign: enhance.adjust_brightness_accumulative(images, _factor(level, sign)),
    "sharpness": lambda images, level, sign: enhance.sharpness(images, _factor(level, sign)),
    "shear_x": _shear(0.3, 0.0),
    "shear_y": _shear(0.0, 0.3),
    "translate_x": _translate(0.45, 0.0),
    "translate_y": _translate(0.0, 0.45),
}
"""At full level: 30 degrees, a shear of 0.3, a shift by 0.45 of the side, factors of 0.1 and 1.9, no bits of a byte."""
