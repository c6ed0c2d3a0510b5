"""The Hessian of one batch's loss times a direction: by the double backward, or by the gradient of the loss's slope."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .slope import Loss, loss_and_slope
from .twice import refuse_once_differentiable

Parts = Sequence[Tensor]
"""A tensor for each parameter, of its shape."""


class BatchProduct:
    """Of a model and its loss, as `twice_differentiable` has them; to be asked within it.

    The double backward goes through the graph of the gradient, which can be kept for other directions. Where it is not,
    the slope's gradient takes less time. The first product by it is computed in the other way too, and where they
    differ, or torch cannot carry the slope through the model, all are by the double backward.
    """

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        self._model, self._loss = model, loss
        self._names, self.params = zip(*((name, p) for name, p in model.named_parameters() if p.requires_grad))
        self._slope_is_right: bool | None = None  # not known yet

    def graph(self, batch: Any) -> Parts:
        """The gradients of a batch, and with them the graph that they came by.

        Raises:
            ValueError: a loss that is no scalar, not finite, or without a second derivative.
        """
        with _named_as_the_fault_of_the_loss():
            loss = self._loss(self._model, batch)
            _check(loss)
            if self._slope_is_right is None:
                refuse_once_differentiable(loss)
            return torch.autograd.grad(loss, self.params, create_graph=True, materialize_grads=True)

    def by_graph(self, gradients: Parts, directions: Parts, keep: bool) -> Parts:
        """The product through the gradients' graph, which is gone afterwards unless it is to be kept."""
        curved = [(g, v) for g, v in zip(gradients, directions) if g.requires_grad]
        if not curved:  # linear in every parameter
            return [torch.zeros_like(p) for p in self.params]
        outputs, vectors = zip(*curved)
        with _named_as_the_fault_of_the_loss():
            return torch.autograd.grad(outputs, self.params, vectors, retain_graph=keep, materialize_grads=True)

    def anew(self, batch: Any, directions: Parts) -> Parts:
        """The product of a batch of which nothing is kept."""
        if self._slope_is_right and (product := self._by_slope(batch, directions)) is not None:
            return product
        twice = self.by_graph(self.graph(batch), directions, keep=False)
        if self._slope_is_right is None:
            product = self._by_slope(batch, directions)
            self._slope_is_right = product is not None and _agree(product, twice)
            if self._slope_is_right and product is not None:
                return product
        return twice

    def _by_slope(self, batch: Any, directions: Parts) -> Parts | None:
        """None where torch cannot carry the slope through the model."""
        try:
            loss, slope = loss_and_slope(self._model, self._loss, batch, dict(zip(self._names, directions)))
            product = [torch.zeros_like(p) for p in self.params]  # linear in every parameter
            if slope.requires_grad:
                product = list(torch.autograd.grad(slope, self.params, materialize_grads=True))
        except Exception:  # if it is the fault of the model or the batch, the double backward will name it
            return None
        _check(loss)
        return product


@contextmanager
def _named_as_the_fault_of_the_loss() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if "twice" in str(error) or "derivative for" in str(error) or "not implemented" in str(error):
            raise ValueError(f"loss must be differentiable twice; {error}") from error
        raise


AGREE = torch.finfo(torch.float32).eps ** 0.5
"""To half of the digits: rounding stays far below that (models of float64 may take their loss in float32), and a term
that is missing does not."""


def _agree(product: Parts, other: Parts) -> bool:
    apart = math.hypot(*(torch.linalg.vector_norm(a - b).item() for a, b in zip(product, other)))
    length = math.hypot(*(torch.linalg.vector_norm(b).item() for b in other))
    return apart <= AGREE * length


def _check(loss: Any) -> None:
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise ValueError(f"loss must return a scalar tensor; got {_described(loss)}")
    if not loss.requires_grad:
        raise ValueError("loss must depend on the model's parameters; got one without a gradient (was it detached?)")
    if not loss.isfinite():
        raise ValueError(f"loss must be finite; got {loss.item()}")


def _described(value: Any) -> str:
    return f"one of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
