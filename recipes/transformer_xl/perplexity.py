"""Perplexity per word over a whole text, with a memory that may be longer than in training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from transformers import PretrainedConfig

from recipes.transformer_xl.memory import Memory
from recipes.transformer_xl.streams import NOT_PREDICTED, Streams


def perplexity(loss: float) -> float:
    """Of a mean loss in nats."""
    return math.inf if loss >= 700 else math.exp(loss)  # which overflows there


@torch.no_grad()
def mean_loss(
    model: nn.Module, streams: Streams, batches: Iterable[Mapping[str, Any]], accelerator: Accelerator
) -> float:
    """Negative log likelihood of a word, in nats: of all words of the streams.

    Args:
        model: in evaluation mode.
        streams, batches: the text, and this process' batches of it.
        accelerator: that adds up what the processes found.
    """
    memory = Memory(streams)
    losses, words = [], []
    for batch in batches:
        count = (batch["labels"][:, 1:] != NOT_PREDICTED).sum()
        loss = memory.read(model, batch).loss.float()
        losses.append(torch.where(count > 0, loss * count, 0.0))
        words.append(count)
    exact = torch.float32 if accelerator.device.type == "mps" else torch.float64
    total = torch.stack([torch.stack(part).to(exact).sum() for part in (losses, words)])
    loss, count = accelerator.reduce(total, "sum").tolist()
    return float(loss / count)


@contextmanager
def changed(config: PretrainedConfig, **values: Any) -> Iterator[None]:
    """Other values for a while; those that are None stay as they are."""
    new = {key: value for key, value in values.items() if value is not None}
    old = {key: getattr(config, key) for key in new}
    try:
        for key, value in new.items():
            setattr(config, key, value)
        yield
    finally:
        for key, value in old.items():
            setattr(config, key, value)
