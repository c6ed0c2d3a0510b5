"""The arguments that both training scripts take beside Trainer's, and what can be wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hf_winopt import WinOptTrainingArguments
from recipes.common import RecipeError, RunArguments, parse_arguments, refuse
from recipes.vit.objective import LOSSES
from recipes.vit.sources import EMBEDDED

DEFAULT_MODEL = "google/vit-base-patch16-224-in21k"


@dataclass
class ModelArguments:
    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "To fine-tune: any model that AutoModelForImageClassification takes, from the Hub or a folder. "
            f"Default: {DEFAULT_MODEL}, or with --dataset_name {EMBEDDED} a small ViT from scratch."
        },
    )
    model_type: str | None = field(
        default=None, metadata={"help": "To train from scratch: vit, deit, swin, convnext, resnet, poolformer, ..."}
    )
    config_overrides: str | None = field(
        default=None, metadata={"help": "JSON: what a model from scratch has other than its type's defaults."}
    )
    drop_path: float = field(
        default=0.0, metadata={"help": "Stochastic depth: how often the last block is left out, from 0 to below 1."}
    )
    ema_decay: float = field(
        default=0.0, metadata={"help": "Evaluate and save a moving average of the weights with this decay; 0 for none."}
    )
    lr_drops: list[float] | None = field(
        default=None,
        metadata={"help": "A tenth of the learning rate from each of these epochs on; in place of a schedule."},
    )


@dataclass
class ImageArguments(RunArguments):
    dataset_name: str = field(
        default=EMBEDDED,
        metadata={"help": f"On the Hub, or a folder in the Hub's layout; or '{EMBEDDED}': digits, no network."},
    )
    dataset_config_name: str | None = field(default=None, metadata={"help": "Of a data set that has several."})
    data_dir: str | None = field(default=None, metadata={"help": "Folder of `--dataset_name imagefolder`."})
    image_column_name: str | None = field(default=None, metadata={"help": "image or img unless given."})
    label_column_name: str | None = field(default=None, metadata={"help": "label, labels or fine_label unless given."})
    train_val_split: float = field(
        default=0.1, metadata={"help": "Share of the training images to validate on, where no split is for that."}
    )
    max_train_samples: int | None = field(default=None, metadata={"help": "Train on the first so many."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Evaluate on the first so many."})
    image_size: int | None = field(
        default=None, metadata={"help": "Side in pixels; the model's, or that of the first image, unless given."}
    )
    crop_pct: float = field(
        default=1.0, metadata={"help": "In evaluations: how much of the shorter side the middle of an image is."}
    )


@dataclass
class AugmentArguments:
    """Nothing is augmented unless asked for. Label smoothing is Trainer's --label_smoothing_factor."""

    crop_scale: list[float] | None = field(
        default=None, metadata={"help": "Random resized crops: the least and greatest share of an image, 0.08 1.0 say."}
    )
    hflip: bool = field(default=False, metadata={"help": "Mirror every second image."})
    color_jitter: float = field(
        default=0.0, metadata={"help": "Brightness, contrast and saturation change by up to this share."}
    )
    rand_augment: float = field(default=0.0, metadata={"help": "RandAugment's magnitude, of 10; 0 for none."})
    rand_augment_noise: float = field(default=0.5, metadata={"help": "Standard deviation of the magnitude."})
    rand_augment_layers: int = field(default=2, metadata={"help": "Operations an image, at most 3."})
    random_erasing: float = field(default=0.0, metadata={"help": "Share of the images that lose a rectangle."})
    mixup: float = field(default=0.0, metadata={"help": "Mixup's alpha; 0 for none. With CutMix, in turn by chance."})
    cutmix: float = field(default=0.0, metadata={"help": "CutMix's alpha; 0 for none."})
    repeats: int = field(default=1, metadata={"help": "Repeated augmentation: each image so often in a batch."})
    loss: str = field(default="ce", metadata={"help": "ce: cross-entropy; bce: binary, each class by itself."})


Arguments = tuple[ModelArguments, ImageArguments, AugmentArguments, WinOptTrainingArguments]

_OF_NO_USE = (
    "auto_find_batch_size",
    "batch_eval_metrics",
    "group_by_length",
    "neftune_noise_alpha",
    "prediction_loss_only",
)
_SHARES = ("drop_path", "ema_decay", "train_val_split", "random_erasing", "color_jitter")  # from 0 to below 1


def parse(script: str, argv: Sequence[str]) -> Arguments:
    """All four, from a command line.

    Raises:
        RecipeError: something cannot be.
    """
    model_args, image_args, augment_args, training_args = parse_arguments(
        Path(script).name,
        (ModelArguments, ImageArguments, AugmentArguments, WinOptTrainingArguments),
        argv,
        # Trainer would take the random numbers of a batch for a column that no model wants; a curve needs points.
        {
            "output_dir": "runs/vit",
            "remove_unused_columns": False,
            "label_names": ["labels"],  # Trainer would ask the model, and not every one says
            "eval_strategy": "epoch",
            "logging_steps": 50,
        },
    )
    given = {**vars(model_args), **vars(image_args), **vars(augment_args)}
    for name in _SHARES:
        if not 0 <= given[name] < 1:
            raise RecipeError(f"--{name} {given[name]}: must be from 0 to below 1")
    for name in ("max_train_samples", "max_eval_samples", "image_size", "repeats"):
        if given[name] is not None and given[name] < 1:
            raise RecipeError(f"--{name} {given[name]}: must be at least 1")
    for name in ("mixup", "cutmix", "rand_augment_noise"):
        if given[name] < 0:
            raise RecipeError(f"--{name} {given[name]}: must be at least 0")
    _check_augment(augment_args)
    if not 0 < image_args.crop_pct <= 1:
        raise RecipeError(f"--crop_pct {image_args.crop_pct}: must be above 0 and at most 1")
    if image_args.train_val_split == 0:
        raise RecipeError("--train_val_split 0: must be above 0")
    if model_args.model_name_or_path and (model_args.model_type or model_args.config_overrides):
        raise RecipeError("--model_name_or_path is to fine-tune, --model_type to train from scratch: give one of them")
    if model_args.ema_decay and training_args.load_best_model_at_end:
        raise RecipeError("--load_best_model_at_end loads weights as they were trained: not with --ema_decay")
    if training_args.fp16 and training_args.device.type == "cpu":
        raise RecipeError("fp16 needs a GPU: give --fp16 false")
    if training_args.dataloader_drop_last:
        raise RecipeError("--dataloader_drop_last would leave images out of evaluations too: leave it away")
    if any(epoch <= 0 for epoch in model_args.lr_drops or ()):
        raise RecipeError(f"--lr_drops {' '.join(map(str, model_args.lr_drops))}: must be epochs after the first")
    if model_args.lr_drops is not None and training_args.lr_scheduler_type != "constant":
        raise RecipeError("--lr_drops is a schedule of its own: with it, give --lr_scheduler_type constant")
    refuse(training_args, _OF_NO_USE)
    if training_args.remove_unused_columns or not training_args.eval_do_concat_batches:
        raise RecipeError("--remove_unused_columns true, --eval_do_concat_batches false: not with batches like these")
    if (order := getattr(training_args, "train_sampling_strategy", "random")) != "random":  # from Trainer 5 on
        raise RecipeError(f"--train_sampling_strategy {order}: this script reads in random order")
    if (training_args.metric_for_best_model or "").endswith("accuracy"):
        training_args.greater_is_better = True
    return model_args, image_args, augment_args, training_args


def _check_augment(arguments: AugmentArguments) -> None:
    scale = arguments.crop_scale
    if scale is not None and not (len(scale) == 2 and 0 < scale[0] <= scale[1] <= 1):
        raise RecipeError(f"--crop_scale {' '.join(map(str, scale))}: must be two shares of an image, 0.08 1.0 say")
    if not 0 <= arguments.rand_augment <= 10:
        raise RecipeError(f"--rand_augment {arguments.rand_augment}: must be from 0 to 10")
    if not 1 <= arguments.rand_augment_layers <= 3:
        raise RecipeError(f"--rand_augment_layers {arguments.rand_augment_layers}: must be from 1 to 3")
    if arguments.loss not in LOSSES:
        raise RecipeError(f"--loss {arguments.loss}: must be {' or '.join(LOSSES)}")
