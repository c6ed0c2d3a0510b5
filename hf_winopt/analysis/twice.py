"""A model as its loss can be differentiated twice: at rest, in full precision, by kernels that have the derivative."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def twice_differentiable(model: nn.Module) -> Iterator[None]:
    """Within it the model evaluates (no dropout, batch norm as it is) without autocast and TF32.

    Attention is computed step by step: the fused kernels, and cuDNN's recurrent ones, have no second derivative. All is
    as before afterwards.
    """
    modes = {module: module.training for module in model.modules()}
    precision = torch.get_float32_matmul_precision()
    with ExitStack() as stack:
        stack.callback(_restore, modes, precision)
        model.eval()
        torch.set_float32_matmul_precision("highest")
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False))
        for kind in {p.device.type for p in model.parameters()} or {"cpu"}:
            stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(_plain_attention(model))
        yield


def _restore(modes: dict[nn.Module, bool], precision: str) -> None:
    for module, training in modes.items():
        module.training = training
    torch.set_float32_matmul_precision(precision)


@contextmanager
def _plain_attention(model: Any) -> Iterator[None]:
    """A transformers model that was told to use another kernel than torch's uses torch's."""
    chosen = getattr(getattr(model, "config", None), "_attn_implementation", None)
    if chosen in (None, "eager", "sdpa") or not hasattr(model, "set_attn_implementation"):
        yield
        return
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(chosen)
