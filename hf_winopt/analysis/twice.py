"""A model as its loss can be differentiated twice: at rest, in full precision, by kernels that have the derivative."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.attention import SDPBackend, sdpa_kernel

_one_at_a_time = threading.RLock()


@contextmanager
def twice_differentiable(model: nn.Module) -> Iterator[None]:
    """Within it the model evaluates (no dropout, batch norm as it is) without autocast and TF32.

    Attention is computed step by step: the fused kernels, and cuDNN's recurrent ones, have no second derivative. All is
    as before afterwards; what is chosen here is the process's, and so one thread at a time is within it.
    """
    with _one_at_a_time, ExitStack() as stack:
        modes = {module: module.training for module in model.modules()}
        stack.callback(_restore, modes, torch.get_float32_matmul_precision())
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


def refuse_once_differentiable(loss: Tensor) -> None:
    """What says of itself that it has no second derivative is believed; torch may pass over it without a word.

    Raises:
        ValueError: a backward on the way to the loss is marked so.
    """
    waiting, seen = [loss.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        waiting += [before for before, _ in node.next_functions]
        backward = getattr(getattr(node, "_forward_cls", None), "backward", None)
        if getattr(backward, "__code__", None) is _ONCE:
            raise ValueError(f"loss must be differentiable twice; {node.name()} is marked with @once_differentiable")


_ONCE = once_differentiable(lambda *_: None).__code__
"""The code of every backward that is marked so."""
