"""How fast the ViT recipe reads and augments: images a second, in one process with one thread.

    python -m benchmarks.image_loading --json benchmarks/results/image_loading.json
    python -m benchmarks.image_loading --report benchmarks/results/image_loading.json

*Reading* is what a loading process does: JPEG files of 500 x 375 pixels, the size of most of ImageNet, decoded and
cropped to 224 x 224; or images of 32 x 32 pixels, which were decoded before. *Augmenting* is done in whole batches on
the device of the training, a CPU here.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from datasets import ClassLabel, Dataset, Features, Image

from hf_winopt.files import write_json
from hf_winopt.integrations.results import environment
from recipes.vit.augment import Augment, Normalize
from recipes.vit.images import Images
from recipes.vit.rand_augment import RandAugment
from recipes.vit.sources import Source

REPEATS = 7
IMAGENET = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def pictures(count: int, width: int, height: int) -> Source:
    """JPEG files with as much detail as photographs have: noise of all scales."""
    random = np.random.default_rng(0)
    files = []
    for _ in range(count):
        picture = np.zeros((height, width, 3))
        for scale in (4, 16, 64):
            coarse = random.uniform(0, 80, (max(height // scale, 1), max(width // scale, 1), 3)).astype(np.uint8)
            picture += np.asarray(PIL.Image.fromarray(coarse).resize((width, height), PIL.Image.Resampling.BICUBIC))
        file = io.BytesIO()
        PIL.Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
        files.append({"bytes": file.getvalue(), "path": None})
    features = Features({"image": Image(decode=False), "label": ClassLabel(names=["a"])})
    rows = Dataset.from_dict({"image": files, "label": [0] * count}, features=features)
    return Source("pictures", {"train": rows}, "image", "label", ["a"])


def rate(count: int, work: Callable[[], Any]) -> float:
    """Images a second, the median of the repeats."""
    work()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return count / statistics.median(seconds)


def measure() -> list[dict[str, Any]]:
    rows = []
    for count, width, height, size in ((64, 500, 375, 224), (512, 32, 32, 32)):
        images = Images(pictures(count, width, height), "train", size, scale=(0.08, 1.0), seed=0)
        numbers = list(range(count))
        batch = images.__getitems__(numbers)
        scale = images.scale if images.crops_later else None
        simple = Augment(IMAGENET, size, scale=scale, hflip=True)
        papers = Augment(
            IMAGENET, size, scale=scale, hflip=True, rand_augment=RandAugment(), erasing=0.25, mixup=0.8, cutmix=1.0
        )

        work = {
            "read": partial(images.__getitems__, numbers),
            "crop_and_flip": partial(simple, batch["pixel_values"], batch["labels"], batch["noise"], 10),
            "all": partial(papers, batch["pixel_values"], batch["labels"], batch["noise"], 10),
        }
        rows.append({"images": f"{width} x {height}", "size": size, **{k: rate(count, f) for k, f in work.items()}})
    return rows


def table(results: dict[str, Any]) -> str:
    lines = [
        "| images | size | read | crop and flip | RandAugment, erasing, mixup and CutMix too |",
        "|---|---|---|---|---|",
    ]
    for row in results["rows"]:
        numbers = " | ".join(f"{row[name]:,.0f}" for name in ("read", "crop_and_flip", "all"))
        lines.append(f"| {row['images']} | {row['size']} | {numbers} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Images a second that the ViT recipe reads and augments.")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--report", type=Path, help="print the table of such a file, measure nothing")
    arguments = parser.parse_args()
    if arguments.report is not None:
        print(table(json.loads(arguments.report.read_text(encoding="utf-8"))))
        return
    torch.set_num_threads(1)
    results = {"rows": measure(), "repeats": REPEATS, **environment()}
    print(table(results))
    if arguments.json is not None:
        write_json(arguments.json, results)


if __name__ == "__main__":
    main()
