"""Stochastic depth (Huang et al. 2016) for models of transformers whose configuration has none, ViT and ResNet say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from recipes.common import RecipeError

ARGUMENT = "drop_path_rate"
_BRANCHES: dict[str, tuple[str, ...]] = {  # by the class of a block: what is added to its input
    "ViTLayer": ("dropout", "attention.output", "output.dropout"),
    "DeiTLayer": ("dropout", "attention.output", "output.dropout"),
    "ResNetBasicLayer": ("layer",),
    "ResNetBottleNeckLayer": ("layer",),
}


def has_own(config: PretrainedConfig) -> bool:
    """Whether the model does it itself, as Swin, ConvNeXt and PoolFormer do."""
    return hasattr(config, ARGUMENT)


def add(model: PreTrainedModel, rate: float) -> None:
    """Leave out residual branches in training, the deeper the block the more often, at last with probability `rate`.

    Raises:
        RecipeError: the blocks of this model are not known.
    """
    blocks = [module for module in model.modules() if type(module).__name__ in _BRANCHES]
    if not blocks:
        known = ", ".join(sorted({name.removesuffix("Layer") for name in _BRANCHES}))
        raise RecipeError(
            f"--drop_path {rate}: {type(model).__name__} has no {ARGUMENT}, and its blocks are not known "
            f"(known are {known}): give --drop_path 0"
        )
    for number, block in enumerate(blocks):
        probability = rate * number / max(len(blocks) - 1, 1)
        if probability == 0:
            continue
        branches = [module for name, module in block.named_modules() if name in _BRANCHES[type(block).__name__]]
        for branch in branches:
            branch.register_forward_hook(_dropping(probability))


def _dropping(probability: float) -> Callable[..., Tensor]:
    def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        if not module.training:
            return output
        shape = (output.shape[0], *(1,) * (output.ndim - 1))
        kept = torch.rand(shape, device=output.device) >= probability
        return output * kept / (1 - probability)

    return hook
