"""Products of the loss Hessian with a vector, streamed over the data; the matrix itself is never formed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, distributed, nn

from .one_batch import Loss, Parts, graph, product
from .twice import twice_differentiable

DTYPES = (torch.float32, torch.float64)


class HessianProduct:
    """`v -> H v`, with `H` the Hessian of the mean loss over all examples at a model's trainable parameters.

    The first product is torch's own double backward. Beside it each batch's is taken by the operations of `layers`;
    they take the later ones, faster, if every batch had the same from them.

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
        self._graphs: dict[int, Parts] = {}
        self._held = held
        self._ours, self._compared = True, False

    def __call__(self, vector: Tensor, done: Callable[[int], None] | None = None) -> Tensor:
        """`H v`.

        Args:
            vector: `(dim,)`, of the model's type and on its device.
            done: called after each batch with its number of examples.

        Raises:
            ValueError: a loss that is no scalar, not finite, or without a second derivative.
        """
        directions = [part.view_as(p) for part, p in zip(vector.split([p.numel() for p in self.params]), self.params)]
        sums, begun = torch.empty_like(vector), False
        views = [part.view_as(p) for part, p in zip(sums.split([p.numel() for p in self.params]), self.params)]
        with twice_differentiable(self._model), torch.enable_grad():
            for number, batch, size in self._mine():
                share = size / self.examples
                parts = self._product(number, batch, directions)
                with torch.no_grad():
                    for view, part in zip(views, parts):
                        view.add_(part, alpha=share) if begun else torch.mul(part, share, out=view)
                del parts  # before the next graph takes memory
                begun = True
                if done is not None:
                    done(size)
        self._compared = True
        if not begun:  # more processes than batches
            sums.zero_()
        if self._processes() > 1:
            distributed.all_reduce(sums)
        return sums

    def _product(self, number: int, batch: Any, directions: Parts) -> Parts:
        if self._compared:
            return self._by_kept_graph(number, batch, directions)
        plain = product(graph(self._model, self._loss, moved(batch, self.device), self.params), self.params, directions)
        if self._ours and not self._is_right(plain, number, batch, directions):
            self._ours = False
            self._graphs.clear()
        return plain

    def _is_right(self, plain: Parts, number: int, batch: Any, directions: Parts) -> bool:
        """Whether a batch's product by our operations is torch's own: what a model does to them cannot be foreseen."""
        try:
            found = self._by_kept_graph(number, batch, directions)
        except Exception:  # torch's own was right, whatever this says
            return False
        apart = sum((mine - part).square().sum().item() for mine, part in zip(found, plain))
        return apart <= torch.finfo(self.dtype).eps * sum(part.square().sum().item() for part in plain)

    def _by_kept_graph(self, number: int, batch: Any, directions: Parts) -> Parts:
        gradients = self._graphs.get(number)
        if gradients is None:
            gradients = graph(self._model, self._loss, moved(batch, self.device), self.params, self._ours)
            if len(self._graphs) < self._held:
                self._graphs[number] = gradients
        return product(gradients, self.params, directions, keep=number in self._graphs)

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
