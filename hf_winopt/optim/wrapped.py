"""Win around optimizers of torch, transformers and other libraries, under the options that those have."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from .win import Win

Pair = tuple[float, float]
Triple = tuple[float, float, float]


def _library(module: str, package: str, name: str) -> Any:
    """A module of a library that need not be there.

    Raises:
        ImportError: it is missing; says what brings it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{name} needs {package}, which is missing here ({error}): pip install {package}") from error


def _around(base: Optimizer, acceleration: str, reckless_steps: Pair, state: str, backend: str) -> Win:
    return Win(base, acceleration, reckless_steps, state=state, backend=backend)


def lion_win(
    params: ParamsT,
    lr: float = 1e-4,
    betas: Pair = (0.9, 0.99),
    weight_decay: float = 0.0,
    *,
    acceleration: str = "win",
    reckless_steps: Pair = (2, 8),
    state: str = "float32",
    backend: str = "auto",
) -> Win:
    """Win around Lion (of pytorch_optimizer): every step is as large as the rate, a fifth of AdamW's or less."""
    library = _library("pytorch_optimizer", "pytorch_optimizer", "lion_win")
    base = library.Lion(params, lr=lr, betas=betas, weight_decay=weight_decay)
    return _around(base, acceleration, reckless_steps, state, backend)


def adafactor_win(
    params: ParamsT,
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    clip_threshold: float = 1.0,
    decay_rate: float = -0.8,
    *,
    acceleration: str = "win",
    reckless_steps: Pair = (2, 8),
    state: str = "float32",
    backend: str = "auto",
) -> Win:
    """Win around transformers' Adafactor, as Trainer makes it: no scaling by the parameter, no rate of its own."""
    library = _library("transformers.optimization", "transformers", "adafactor_win")
    base = library.Adafactor(
        params,
        lr=lr,
        weight_decay=weight_decay,
        clip_threshold=clip_threshold,
        decay_rate=decay_rate,
        scale_parameter=False,
        relative_step=False,
    )
    return _around(base, acceleration, reckless_steps, state, backend)


def adamw_8bit_win(
    params: ParamsT,
    lr: float = 1e-3,
    betas: Pair = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    *,
    acceleration: str = "win",
    reckless_steps: Pair = (2, 8),
    state: str = "float32",
    backend: str = "auto",
) -> Win:
    """Win around bitsandbytes' AdamW8bit."""
    library = _library("bitsandbytes.optim", "bitsandbytes", "adamw_8bit_win")
    base = library.AdamW8bit(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
    return _around(base, acceleration, reckless_steps, state, backend)


def adamw_torch_8bit_win(
    params: ParamsT,
    lr: float = 1e-3,
    betas: Pair = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    *,
    acceleration: str = "win",
    reckless_steps: Pair = (2, 8),
    state: str = "float32",
    backend: str = "auto",
) -> Win:
    """Win around torchao's AdamW8bit, which is compiled at its first step."""
    library = _library("torchao.optim", "torchao", "adamw_torch_8bit_win")
    base = library.AdamW8bit(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
    return _around(base, acceleration, reckless_steps, state, backend)


def rmsprop_win(
    params: ParamsT,
    lr: float = 1e-3,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    *,
    acceleration: str = "win",
    reckless_steps: Pair = (2, 8),
    state: str = "float32",
    backend: str = "auto",
) -> Win:
    """Win around `torch.optim.RMSprop`; its weight decay is l2, in the gradient."""
    base = torch.optim.RMSprop(params, lr, alpha, eps, weight_decay, momentum)
    return _around(base, acceleration, reckless_steps, state, backend)


def ademamix_win(
    params: ParamsT,
    lr: float = 1e-3,
    betas: Triple = (0.9, 0.999, 0.9999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    alpha: float = 5.0,
    *,
    acceleration: str = "win",
    reckless_steps: Pair = (2, 8),
    state: str = "float32",
    backend: str = "auto",
) -> Win:
    """Win around AdEMAMix (of pytorch_optimizer): a second, slow average of the gradient, times `alpha`."""
    library = _library("pytorch_optimizer", "pytorch_optimizer", "ademamix_win")
    base = library.AdEMAMix(
        params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, weight_decouple=True, alpha=alpha
    )
    return _around(base, acceleration, reckless_steps, state, backend)
