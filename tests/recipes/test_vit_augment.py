"""Augmentation on tensors: against Pillow where it has the same, and image by image where it has not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

pytest.importorskip("kornia")

from recipes.vit import geometry
from recipes.vit.augment import ERASED_AREA, Augment, Normalize
from recipes.vit.mixing import mix
from recipes.vit.noise import COLUMNS, Noise, column, draw
from recipes.vit.rand_augment import OPERATIONS, RandAugment

PLAIN = Normalize((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def photos(count: int = 6, height: int = 20, width: int = 24) -> Tensor:
    """Smooth pictures, uint8."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    return (torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear") * 255).round().byte()


def floats(count: int = 6) -> Tensor:
    return photos(count).float() / 255


def noise_with(count: int, **values: float) -> Noise:
    noise = draw(0, 0, range(count))
    for name, value in values.items():
        noise[:, COLUMNS.index(name)] = value
    return noise


# ------------------------------------------------------------------------------------------------------ noise


def test_numbers_are_the_image_s_own():
    all_of_them = draw(3, 5, range(40))
    assert np.array_equal(draw(3, 5, [7, 31]), all_of_them[[7, 31]])
    for other in (draw(4, 5, range(40)), draw(3, 6, range(40)), draw(3, 5, range(40, 80))):
        assert not (other == all_of_them).any()


def test_numbers_are_uniform():
    values = torch.from_numpy(draw(0, 0, range(4000)))
    assert ((values >= 0) & (values < 1)).all()
    assert torch.allclose(values.mean(0), torch.tensor(0.5), atol=0.03)
    assert torch.allclose(values.var(0), torch.tensor(1 / 12), atol=0.01)
    assert torch.corrcoef(values.T).fill_diagonal_(0).abs().max() < 0.08


# --------------------------------------------------------------------------------------------------- geometry


@pytest.mark.parametrize(("height", "width"), [(32, 32), (100, 30), (30, 100)])
def test_crops_lie_inside_and_are_of_the_right_area(height, width):
    boxes = geometry.crop_boxes(draw(0, 0, range(500)), height, width, (0.08, 1.0))
    left, top, right, bottom = boxes.unbind(1)
    assert (boxes >= -1e-4).all() and (right <= width + 1e-4).all() and (bottom <= height + 1e-4).all()
    share = (right - left) * (bottom - top) / (height * width)
    assert share.max() <= 1 + 1e-5 and (share > 0).all()
    if height == width:
        ratio = (right - left) / (bottom - top)
        inside = (right - left < width - 1e-3) & (bottom - top < height - 1e-3)
        assert share[inside].min() >= 0.08 - 1e-5
        assert ratio[inside].min() >= 3 / 4 - 1e-4 and ratio[inside].max() <= 4 / 3 + 1e-4


def test_a_crop_of_whole_pixels_is_those_pixels():
    images = floats()
    boxes = torch.tensor([[3.0, 5.0, 11.0, 13.0]]).repeat(len(images), 1)
    assert torch.allclose(geometry.cut(images, boxes, 8), images[:, :, 5:13, 3:11], atol=1e-5)


def test_an_enlarged_crop_is_pillow_s():
    images = photos()
    boxes = geometry.crop_boxes(draw(0, 0, range(len(images))), 20, 24, (0.2, 0.6))
    cropped = geometry.cut(images.float() / 255, boxes, 24)
    for image, box, found in zip(images, boxes.tolist(), cropped):
        whole = Image.fromarray(image.permute(1, 2, 0).numpy())
        expected = np.array(whole.resize((24, 24), Image.Resampling.BICUBIC, box=tuple(box)))
        difference = (found.permute(1, 2, 0) * 255 - torch.from_numpy(expected).float()).abs()
        assert difference[2:-2, 2:-2].max() < 6  # bicubic kernels differ a little, and most at the edges


def test_half_are_mirrored():
    images, noise = floats(), draw(0, 0, range(6))
    flipped = geometry.flip(images, noise)
    for image, found, number in zip(images, flipped, column(noise, "flip")):
        assert torch.equal(found, image.flip(-1) if number < 0.5 else image)


# ----------------------------------------------------------------------------------------------- RandAugment


def _pillow(image: Tensor, operation) -> Tensor:
    result = operation(Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()))
    return torch.from_numpy(np.array(result)).permute(2, 0, 1).float() / 255


@pytest.mark.parametrize(
    ("name", "level", "operation"),
    [
        ("auto_contrast", 0.7, ImageOps.autocontrast),
        ("invert", 0.7, ImageOps.invert),
        ("posterize", 0.7, lambda image: ImageOps.posterize(image, 2)),
        ("posterize", 0.0, lambda image: ImageOps.posterize(image, 4)),
        ("solarize", 0.6, lambda image: ImageOps.solarize(image, 102)),
        ("brightness", 0.5, lambda image: ImageEnhance.Brightness(image).enhance(1.45)),
        ("contrast", 0.5, lambda image: ImageEnhance.Contrast(image).enhance(1.45)),
        ("saturation", 0.5, lambda image: ImageEnhance.Color(image).enhance(1.45)),
    ],
)
def test_operations_on_colours_are_pillow_s(name, level, operation):
    images, count = floats(), 6
    found = OPERATIONS[name](images, torch.full((count,), level), torch.ones(count))
    for image, result in zip(images, found):
        assert (result - _pillow(image, operation)).abs().max() <= 2.1 / 255


def test_equalized_values_are_spread_evenly():
    found = OPERATIONS["equalize"](floats(), torch.zeros(6), torch.ones(6))
    for image, result in zip(floats(), found):
        expected = _pillow(image, ImageOps.equalize)
        assert (result - expected).abs().mean() < 2 / 255


def test_sharpness_is_pillow_s_inside():
    images = floats()
    found = OPERATIONS["sharpness"](images, torch.full((6,), 0.5), torch.ones(6))
    for image, result in zip(images, found):
        expected = _pillow(image, lambda photo: ImageEnhance.Sharpness(photo).enhance(1.45))
        assert (result - expected)[:, 1:-1, 1:-1].abs().max() <= 3 / 255


@pytest.mark.parametrize("name", ["rotate", "shear_x", "shear_y", "translate_x", "translate_y"])
def test_operations_on_places_do_nothing_at_level_0_and_undo_each_other_s_sign(name):
    images, count = floats(), 6
    still = OPERATIONS[name](images, torch.zeros(count), torch.ones(count))
    assert torch.allclose(still, images, atol=1e-5)
    there = OPERATIONS[name](images, torch.full((count,), 0.4), torch.ones(count))
    assert (there - images).abs().max() > 0.05
    back = OPERATIONS[name](there, torch.full((count,), 0.4), -torch.ones(count))
    assert (back - images)[:, :, 8:12, 11:13].abs().max() < 0.06


def test_a_shift_is_by_so_many_pixels():
    images = photos(2, 20, 20).float() / 255
    found = OPERATIONS["translate_x"](images, torch.tensor([1.0, 1.0]), torch.tensor([1.0, -1.0]))
    assert torch.allclose(found[0, :, :, 9:], images[0, :, :, :-9], atol=1e-5)
    assert torch.allclose(found[1, :, :, :-9], images[1, :, :, 9:], atol=1e-5)
    assert torch.allclose(found[0, :, :, :9], torch.tensor(0.5), atol=1e-5)  # grey moves in


def test_every_image_has_operations_of_its_own():
    images, augment = floats(40), RandAugment(magnitude=9, probability=1.0)
    before, noise = images.clone(), draw(0, 0, range(40))
    together = augment(images, noise)
    assert torch.equal(images, before)
    alone = torch.cat([augment(images[i : i + 1], noise[i : i + 1]) for i in range(40)])
    assert torch.allclose(together, alone, atol=1e-5)
    chosen = (column(noise, "operation_1") * len(OPERATIONS)).long()
    assert len(chosen.unique()) > 8
    assert (together >= -1e-5).all() and (together <= 1 + 1e-5).all()


def test_level_has_noise_and_half_of_the_operations_are_used():
    count = 400
    images = torch.full((count, 3, 4, 4), 0.4)
    brightness = (list(OPERATIONS).index("brightness") + 0.5) / len(OPERATIONS)
    noise = noise_with(count, operation_1=brightness, sign_1=0.9)
    added = RandAugment(magnitude=5, noise=0.5, layers=1)(images, noise)[:, 0, 0, 0] - 0.4
    used = added.abs() > 1e-6
    assert 0.4 < used.float().mean() < 0.6
    levels = added[used] / (0.4 * 0.9)
    assert abs(levels.mean() - 0.5) < 0.01 and abs(levels.std() - 0.05) < 0.01


# ----------------------------------------------------------------------------------------------------- mixing


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_targets_say_what_is_in_the_images(mixup, cutmix):
    """Images that are 0 or 1 all over: so a picture's mean is its share of the other."""
    kinds = set()
    for number in range(30):
        noise = draw(0, 0, range(4 * number, 4 * number + 4))
        labels = torch.tensor([0, 0, 1, 1])
        images = labels.float().view(4, 1, 1, 1).expand(4, 3, 10, 12)
        mixed, targets = mix(images, torch.nn.functional.one_hot(labels, 2).float(), noise, mixup, cutmix)
        assert torch.allclose(targets.sum(1), torch.ones(4))
        assert torch.allclose(mixed.mean((1, 2, 3)), targets[:, 1], atol=1e-5)
        kinds.add(len(mixed[0].unique()) == 2)
    assert kinds == ({True, False} if mixup and cutmix else kinds)


def test_shares_are_of_a_beta_distribution():
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    shares = [mix(torch.zeros(2, 3, 2, 2), labels, draw(0, 0, [i, i]), 0.8, 0.0)[1][0, 0] for i in range(600)]
    shares = torch.stack(shares)
    assert abs(shares.mean() - 0.5) < 0.04
    assert abs(shares.var() - 0.25 / (2 * 0.8 + 1)) < 0.01  # of Beta(a, a)


def test_nothing_is_mixed_unless_asked_for():
    images, targets = floats(), torch.eye(6)
    assert mix(images, targets, draw(0, 0, range(6)), 0.0, 0.0) == (images, targets)


# -------------------------------------------------------------------------------------------------- all of it


def test_default_only_normalizes():
    images = photos()
    augment = Augment(Normalize((0.1, 0.2, 0.3), (0.5, 0.6, 0.7)), size=20)
    found, targets = augment(images, torch.arange(6), draw(0, 0, range(6)), 6)
    expected = (images.double() / 255 - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor(
        [0.5, 0.6, 0.7]
    ).view(3, 1, 1)
    assert torch.allclose(found.double(), expected, atol=1e-6)
    assert torch.equal(targets, torch.eye(6))
    assert torch.equal(found, augment.plain(images))


def test_erased_rectangles():
    images, count = torch.full((200, 3, 30, 30), 255, dtype=torch.uint8), 200
    augment = Augment(PLAIN, size=30, erasing=0.25)
    found, _ = augment(images, torch.zeros(count, dtype=torch.int64), draw(0, 0, range(count)), 2)
    erased = (found == 0).all(1)
    some = erased.any((1, 2))
    assert 0.15 < some.float().mean() < 0.35
    for mask in erased[some]:
        rows, columns = mask.any(1), mask.any(0)
        assert mask.sum() == rows.sum() * columns.sum()  # one rectangle
        assert ERASED_AREA[0] * 0.3 < mask.float().mean() < ERASED_AREA[1] * 1.2


def test_half_precision_does_not_reach_the_augmentation():
    images, noise = photos(6, 24, 24), draw(0, 0, range(6))
    augment = Augment(PLAIN, 24, scale=(0.5, 1.0), rand_augment=RandAugment(9, probability=1.0), jitter=0.4)
    expected, _ = augment(images, torch.arange(6), noise, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, _ = augment(images, torch.arange(6), noise, 6)
    assert found.dtype == torch.float32 and torch.equal(found, expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_a_gpu_the_same_and_nothing_is_read_back():
    images, labels, noise = photos(24, 32, 32), torch.arange(24) % 6, draw(0, 0, range(24))
    augment = Augment(
        PLAIN,
        32,
        scale=(0.3, 1.0),
        hflip=True,
        jitter=0.4,
        rand_augment=RandAugment(),
        erasing=0.5,
        mixup=0.8,
        cutmix=1.0,
    )
    expected, expected_targets = augment(images, labels, noise, 6)
    there = images.cuda(), labels.cuda()
    augment(*there, noise, 6)
    torch.cuda.set_sync_debug_mode("error")
    try:
        found, targets = augment(*there, noise, 6)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.allclose(targets.cpu(), expected_targets, atol=1e-6)
    assert (found.cpu() - expected).abs().quantile(0.99) < 1e-3  # a pixel at a threshold may fall on its other side
