"""The Hessian of one batch's loss times a direction, by the double backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from .layers import MadeForTwice
from .twice import refuse_once_differentiable

Loss = Callable[[nn.Module, Any], Tensor]
"""`loss(model, batch)`: the mean loss over the examples of a batch, a scalar."""

Parts = Sequence[Tensor]
"""A tensor for each parameter, of its shape."""


def graph(model: nn.Module, loss: Loss, batch: Any, params: Parts, ours: bool = False) -> Parts:
    """The graph of a batch's gradients.

    Args:
        ours: by the operations of `layers`; the values of the gradients may then be left out.

    Raises:
        ValueError: a loss that is no scalar, not finite, or without a second derivative.
    """
    with _named_as_the_fault_of_the_loss():
        operations = MadeForTwice() if ours else nullcontext()
        with operations:
            value = loss(model, batch)
        _check(value)
        refuse_once_differentiable(value)
        if isinstance(operations, MadeForTwice):
            value.register_hook(operations.unformed.from_here)
        return torch.autograd.grad(value, params, create_graph=True, materialize_grads=True)


def product(gradients: Parts, params: Parts, directions: Parts, keep: bool = False) -> Parts:
    """Back through the gradients' graph, which is gone afterwards unless it is to be kept."""
    curved = [(g, v) for g, v in zip(gradients, directions) if g.requires_grad]
    if not curved:  # linear in every parameter
        return [torch.zeros_like(p) for p in params]
    outputs, vectors = zip(*curved)
    with _named_as_the_fault_of_the_loss():
        return torch.autograd.grad(outputs, params, vectors, retain_graph=keep, materialize_grads=True)


@contextmanager
def _named_as_the_fault_of_the_loss() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if "twice" in str(error) or "derivative for" in str(error) or "not implemented" in str(error):
            raise ValueError(f"loss must be differentiable twice; {error}") from error
        raise


def _check(loss: Any) -> None:
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise ValueError(f"loss must return a scalar tensor; got {_described(loss)}")
    if not loss.requires_grad:
        raise ValueError("loss must depend on the model's parameters; got one without a gradient (was it detached?)")
    if not loss.isfinite():
        raise ValueError(f"loss must be finite; got {loss.item()}")


def _described(value: Any) -> str:
    return f"one of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
