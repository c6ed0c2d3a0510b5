"""What is trained on what: from the arguments to the model, the images and how they are augmented, and the report."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from transformers import BaseImageProcessor, PreTrainedModel, TrainingArguments

from hf_winopt.integrations import report
from hf_winopt.integrations.results import Finished, Results
from recipes.vit import classifier, sources
from recipes.vit.arguments import Arguments, AugmentArguments
from recipes.vit.augment import Augment
from recipes.vit.images import Images
from recipes.vit.objective import Objective
from recipes.vit.rand_augment import RandAugment
from recipes.waiting import Waiting

PREFIXES = {"validation": "eval_", "test": "eval_test_"}
"""What stands before a metric of each split in the log."""

USAGE = """
from transformers import pipeline

classify = pipeline("image-classification", model="FOLDER_OR_HUB_NAME")
print(classify("image.png"))
""".strip()


@dataclass(frozen=True)
class Experiment:
    """All that a training script needs, checked before any training."""

    model: PreTrainedModel
    processor: BaseImageProcessor
    augment: Augment
    train: Images
    evaluated: dict[str, Images]
    """`validation` and, where there is one, `test`."""


def prepare(arguments: Arguments) -> Experiment:
    """Find the images, make or load the model. The seed must be set already.

    Raises:
        RecipeError: some of it does not fit.
    """
    model_args, image_args, augment_args, training_args = arguments
    source = sources.load(
        image_args.dataset_name,
        image_args.dataset_config_name,
        data_dir=image_args.data_dir,
        image=image_args.image_column_name,
        label=image_args.label_column_name,
        held_out=image_args.train_val_split,
    )
    for split, rows in source.splits.items():
        limit = image_args.max_train_samples if split == "train" else image_args.max_eval_samples
        source.splits[split] = rows.select(range(min(limit or len(rows), len(rows))))
    model, processor, size = classifier.load(
        model_args,
        image_args.dataset_name,
        source.classes,
        image_args.image_size,
        image_args.crop_pct,
        source.open("train", 0).size,
    )
    seed = training_args.seed if training_args.data_seed is None else training_args.data_seed
    scale = augment_args.crop_scale and (augment_args.crop_scale[0], augment_args.crop_scale[1])
    train = Images(source, "train", size, scale=scale, seed=seed)
    return Experiment(
        model,
        processor,
        _augment(augment_args, processor, size, scale if train.crops_later else None),
        train,
        {
            split: Images(source, split, size, crop_pct=image_args.crop_pct)
            for split in PREFIXES
            if split in source.splits
        },
    )


def _augment(
    arguments: AugmentArguments, processor: BaseImageProcessor, size: int, scale: tuple[float, float] | None
) -> Augment:
    rand_augment = RandAugment(arguments.rand_augment, arguments.rand_augment_noise, arguments.rand_augment_layers)
    return Augment(
        normalize=classifier.normalize(processor),
        size=size,
        scale=scale,
        hflip=arguments.hflip,
        jitter=arguments.color_jitter,
        rand_augment=rand_augment if arguments.rand_augment else None,
        erasing=arguments.random_erasing,
        mixup=arguments.mixup,
        cutmix=arguments.cutmix,
    )


def objective(experiment: Experiment, augment_args: AugmentArguments, training_args: TrainingArguments) -> Objective:
    """What the model is trained for."""
    classes = experiment.model.config.num_labels
    return Objective(experiment.augment, classes, augment_args.loss, training_args.label_smoothing_factor)


def steps_in_epoch(experiment: Experiment, args: TrainingArguments) -> int:
    """Of the optimizer."""
    batches = math.ceil(len(experiment.train) / args.train_batch_size)
    return math.ceil(math.ceil(batches / args.world_size) / args.gradient_accumulation_steps)


def results(arguments: Arguments, experiment: Experiment, finished: Finished, waiting: Waiting) -> Results:
    """What `report.write_report` takes; `waiting` is that for data."""
    model_args, image_args, _, _ = arguments
    source = sources.describe(image_args.dataset_name, image_args.dataset_config_name, image_args.data_dir)
    return finished.results(
        {split: PREFIXES[split] for split in experiment.evaluated},
        ("accuracy",),
        _describe(arguments, experiment),
        task=source["title"],
        license=image_args.license,
        pipeline="image-classification",
        dataset=source,
        model=classifier.describe(model_args, image_args.dataset_name, experiment.model),
        waiting_for_data=waiting.share,
        usage=USAGE,
    )


def summary(results: Results) -> str:
    """What the scripts print at the end."""
    share = f"waiting for data: {results['waiting_for_data']:.1%} of the time of the training steps"
    return f"{report.summary(results)}\n{share}"


def _describe(arguments: Arguments, experiment: Experiment) -> dict[str, Any]:
    model_args, image_args, augment_args, training_args = arguments
    return {
        "train_examples": len(experiment.train),
        "image_size": experiment.augment.size,
        "crop_pct": image_args.crop_pct,
        **vars(augment_args),
        "label_smoothing": training_args.label_smoothing_factor,
        **{name: getattr(model_args, name) for name in ("drop_path", "ema_decay", "lr_drops")},
    }
