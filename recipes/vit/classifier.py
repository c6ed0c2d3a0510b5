"""The model to train, a new one or a trained one, with a head for these classes; checked with one image."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    BaseImageProcessor,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from hf_winopt.public import public_name
from recipes.common import RecipeError
from recipes.vit import stochastic_depth
from recipes.vit.arguments import DEFAULT_MODEL, ModelArguments
from recipes.vit.augment import Normalize
from recipes.vit.sources import EMBEDDED

SMALL = {
    "patch_size": 2,
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.1,  # 0.02 suits wider models: this one then learns more slowly
}
"""Of the ViT for the embedded digits: 16 patches, 0.1 M parameters."""


def load(
    arguments: ModelArguments,
    dataset_name: str,
    classes: Sequence[str],
    size: int | None,
    crop_pct: float,
    first_image: tuple[int, int],
) -> tuple[PreTrainedModel, BaseImageProcessor, int]:
    """The model, what prepares images for it elsewhere, and the side of its images.

    Args:
        arguments: which model.
        dataset_name: the embedded data has a model of its own.
        classes: their names.
        size, crop_pct: `--image_size` and `--crop_pct`.
        first_image: width and height of one.

    Raises:
        RecipeError: there is no such model, or it takes no images of this size.
    """
    labels = {"id2label": dict(enumerate(classes)), "label2id": {name: number for number, name in enumerate(classes)}}
    name, kind, overrides = _which(arguments, dataset_name)
    drop_path = {stochastic_depth.ARGUMENT: arguments.drop_path} if arguments.drop_path else {}
    try:
        if name is not None:
            config = AutoConfig.from_pretrained(name, **labels)
            usual = AutoImageProcessor.from_pretrained(name)
            mean, std = usual.image_mean or IMAGENET_DEFAULT_MEAN, usual.image_std or IMAGENET_DEFAULT_STD
        else:
            config = _new_config(kind, overrides, labels)
            mean, std = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
        size = size or (_side(config) if name is not None else max(first_image))
        _check_patches(config, size)
        if stochastic_depth.has_own(config):
            config.update(drop_path)
        if name is not None:
            model = AutoModelForImageClassification.from_pretrained(name, config=config, ignore_mismatched_sizes=True)
            model = model.float()  # steps would be lost in the rounding of weights that were stored in half precision
        else:
            if hasattr(config, "image_size"):
                config.image_size = size
            model = AutoModelForImageClassification.from_config(config)
    except (ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError, StrictDataclassError) as error:
        if isinstance(error, RecipeError):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RecipeError(f"cannot load the model {name or kind!r}: {reason}") from error
    if drop_path and not stochastic_depth.has_own(config):
        stochastic_depth.add(model, arguments.drop_path)
    _check_size(model, size)
    return model, _processor(size, crop_pct, mean, std), size


def describe(arguments: ModelArguments, dataset_name: str, model: PreTrainedModel) -> dict[str, Any]:
    """What results and model card say about the model."""
    name, kind, _ = _which(arguments, dataset_name)
    if name is None:
        origin = {"name": f"{kind} from scratch", "source": "scratch"}
    else:
        origin = {"name": public_name(name), "source": "local" if Path(name).exists() else "hub"}
    return origin | {"class": type(model).__name__, "parameters": model.num_parameters()}


def normalize(processor: BaseImageProcessor) -> Normalize:
    """As the processor does it."""
    return Normalize(tuple(processor.image_mean), tuple(processor.image_std))


def _which(arguments: ModelArguments, dataset_name: str) -> tuple[str | None, str, dict[str, Any]]:
    """Name of a trained model, or None; type and particulars of one from scratch."""
    overrides: dict[str, Any] = {}
    if arguments.config_overrides is not None:
        try:
            overrides = json.loads(arguments.config_overrides)
        except json.JSONDecodeError as error:
            raise RecipeError(f"--config_overrides {arguments.config_overrides}: not valid JSON: {error}") from error
        if not isinstance(overrides, dict):
            raise RecipeError(f'--config_overrides {arguments.config_overrides}: must be like {{"hidden_size": 192}}')
    if arguments.model_name_or_path is not None:
        return arguments.model_name_or_path, "", {}
    if arguments.model_type is not None:
        return None, arguments.model_type, overrides
    if dataset_name == EMBEDDED:
        return None, "vit", SMALL | overrides
    if overrides:
        raise RecipeError("--config_overrides is for a model from scratch: say of which --model_type")
    return DEFAULT_MODEL, "", {}


def _new_config(kind: str, overrides: Mapping[str, Any], labels: Mapping[str, Any]) -> PretrainedConfig:
    if kind not in CONFIG_MAPPING:
        near = difflib.get_close_matches(kind, list(CONFIG_MAPPING), n=1)
        raise RecipeError(f"--model_type {kind}: " + (f"did you mean {near[0]}?" if near else "transformers has none"))
    usual = AutoConfig.for_model(kind)
    for name in overrides:  # a configuration takes any name, and does nothing with those it does not know
        if not hasattr(usual, name):
            near = difflib.get_close_matches(name, list(usual.to_dict()), n=1)
            raise RecipeError(
                f"--config_overrides: {kind} has no {name}" + (f": did you mean {near[0]}?" if near else "")
            )
    config = AutoConfig.for_model(kind, **labels, **overrides)
    config.architectures = config.architectures or []  # where a type has two classes, as DeiT, the first is meant
    return config


def _side(config: PretrainedConfig) -> int:
    side = getattr(config, "image_size", None) or 224
    return side if isinstance(side, int) else max(side)


def _check_patches(config: PretrainedConfig, size: int) -> None:
    """A convolution would leave out what is more than whole patches, without a word."""
    patch = getattr(config, "patch_size", None)
    if isinstance(patch, int) and patch < 1:
        raise RecipeError(f"--config_overrides: patch_size {patch} must be at least 1")
    if isinstance(patch, int) and size % patch and hasattr(config, "image_size"):
        below, above = size // patch * patch or patch, (size // patch + 1) * patch
        raise RecipeError(f"--image_size {size} is not a multiple of the patch size {patch}: give {below} or {above}")


def _check_size(model: PreTrainedModel, size: int) -> None:
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            model(pixel_values=torch.zeros(1, 3, size, size))
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RecipeError(f"--image_size {size} does not fit {type(model).__name__}: {reason}") from error
    model.train(training)


def _processor(size: int, crop_pct: float, mean: Sequence[float], std: Sequence[float]) -> BaseImageProcessor:
    """What prepares an image as the recipe's evaluations do: its middle, `crop_pct` of the shorter side, resized."""
    # transformers 5 has two, and warns where the one that needs torchvision cannot be had.
    kind = getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor
    return kind(
        size={"shortest_edge": round(size / crop_pct)},
        crop_size={"height": size, "width": size},
        resample=3,  # bicubic
        image_mean=list(mean),
        image_std=list(std),
    )
