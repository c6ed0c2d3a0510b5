"""Products of the loss Hessian with a vector, streamed over the data; the matrix itself is never formed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable

from .twice import twice_differentiable

Loss = Callable[[nn.Module, Any], Tensor]
"""`loss(model, batch)`: the mean loss over the examples of a batch, a scalar."""

DTYPES = (torch.float32, torch.float64)


class HessianProduct:
    """`v -> H v`, with `H` the Hessian of the mean loss over all examples at a model's trainable parameters.

    Where a process group is up, each process takes its share of the batches, and the products are added: every one has
    the whole result.

    Args:
        model: float32 or float64; evaluated as `twice_differentiable` says.
        batches: can be walked many times, in the same order with the same content; tensors are moved to the model.
        loss: of one batch, the mean over its examples. Batches count by their number of examples.
        held: of so many batches the gradient's graph is kept from product to product, and need not be made again: that
            spares a third of the time, for the memory of a training step of each.

    Raises:
        ValueError: a model without trainable parameters or not in float32 or float64; no batches.
    """

    def __init__(self, model: nn.Module, batches: Iterable[Any], loss: Loss, held: int = 0) -> None:
        self.params = [p for p in model.parameters() if p.requires_grad]
        if not self.params:
            raise ValueError("model must have trainable parameters; got none with requires_grad")
        for p in self.params:
            if p.dtype not in DTYPES:
                raise ValueError(
                    f"model must be in float32 or float64; got a parameter of {p.dtype}. Second derivatives drown in "
                    "its rounding: use model.float()"
                )
        if len(kinds := {(p.dtype, p.device) for p in self.params}) > 1:
            raise ValueError(f"model must be of one type on one device; got {sorted(map(str, kinds))}")
        if isinstance(batches, Iterator):
            raise ValueError("dataloader must be one that can be walked again and again; got an iterator")
        self._model, self._batches, self._loss = model, batches, loss
        self.dim = sum(p.numel() for p in self.params)
        self.dtype, self.device = self.params[0].dtype, self.params[0].device
        self.examples = self._count()
        self._graphs: dict[int, Sequence[Tensor]] = {}
        self._held = held

    def __call__(self, vector: Tensor, done: Callable[[int], None] | None = None) -> Tensor:
        """`H v`.

        Args:
            vector: `(dim,)`, of the model's type and on its device.
            done: called after each batch with its number of examples.

        Raises:
            ValueError: a loss that is no scalar, not finite, or without a second derivative.
        """
        directions = [part.view_as(p) for part, p in zip(vector.split([p.numel() for p in self.params]), self.params)]
        sums = torch.zeros_like(vector)
        views = [part.view_as(p) for part, p in zip(sums.split([p.numel() for p in self.params]), self.params)]
        with twice_differentiable(self._model), torch.enable_grad():
            for number, batch, size in self._mine():
                for view, product in zip(views, self._of_batch(number, batch, directions)):
                    view.add_(product, alpha=size / self.examples)
                if done is not None:
                    done(size)
        if self._processes() > 1:
            distributed.all_reduce(sums)
        return sums

    def _of_batch(self, number: int, batch: Any, directions: Sequence[Tensor]) -> Sequence[Tensor]:
        holds = number in self._graphs or len(self._graphs) < self._held
        try:
            grads = self._graphs.get(number) or self._gradients(batch, first=number == 0)
            if holds:
                self._graphs[number] = grads
            curved = [(g, v) for g, v in zip(grads, directions) if g.requires_grad]
            if not curved:  # linear in every parameter
                return [torch.zeros_like(p) for p in self.params]
            outputs, vectors = zip(*curved)
            return torch.autograd.grad(outputs, self.params, vectors, retain_graph=holds, materialize_grads=True)
        except RuntimeError as error:
            if "twice" in str(error) or "derivative for" in str(error) or "not implemented" in str(error):
                raise ValueError(f"loss must be differentiable twice; {error}") from error
            raise

    def _gradients(self, batch: Any, first: bool) -> Sequence[Tensor]:
        """Of the loss of a batch, with the graph that they came by."""
        loss = self._loss(self._model, moved(batch, self.device))
        _check(loss)
        if first:
            _refuse_once_differentiable(loss)
        return torch.autograd.grad(loss, self.params, create_graph=True, materialize_grads=True)

    def _count(self) -> int:
        examples = sum(size_of(batch) for batch in self._batches)
        if not examples:
            raise ValueError("dataloader must have examples; got an empty one")
        return examples

    def _mine(self) -> Iterator[tuple[int, Any, int]]:
        processes = self._processes()
        rank = distributed.get_rank() if processes > 1 else 0
        for number, batch in enumerate(self._batches):
            if number % processes == rank:
                yield number, batch, size_of(batch)

    def _processes(self) -> int:
        up = distributed.is_available() and distributed.is_initialized()
        return distributed.get_world_size() if up else 1


def _refuse_once_differentiable(loss: Tensor) -> None:
    """What says of itself that it has no second derivative is believed; torch may pass over it without a word."""
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


def _check(loss: Any) -> None:
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise ValueError(f"loss must return a scalar tensor; got {_described(loss)}")
    if not loss.requires_grad:
        raise ValueError("loss must depend on the model's parameters; got one without a gradient (was it detached?)")
    if not loss.isfinite():
        raise ValueError(f"loss must be finite; got {loss.item()}")


def _described(value: Any) -> str:
    return f"one of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)


def moved(batch: Any, device: torch.device) -> Any:
    """A batch, nested in whatever way, with its tensors on a device."""
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: moved(value, device) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return type(batch)(moved(value, device) for value in batch)
    return batch


def size_of(batch: Any) -> int:
    """How many examples a batch has: the first dimension of its first tensor.

    Raises:
        ValueError: there is no such tensor.
    """
    if isinstance(batch, Tensor) and batch.ndim:
        return batch.shape[0]
    parts = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, (list, tuple)) else ()
    for part in parts:
        try:
            return size_of(part)
        except ValueError:
            continue
    raise ValueError(f"dataloader must give batches with a tensor of examples; got {type(batch).__name__}")
