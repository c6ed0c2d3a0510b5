"""What compiled code takes for granted of tensors, and whether it is still so.

Asked of all parameters and gradients at every step: the loops here run in C.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter

from torch import Tensor

NOWHERE = 16
"""Stands for the address of a gradient without elements, which has none; 0 says that there is no gradient."""

Column = Callable[[Tensor], object]

AT_A_KNOWN_PLACE: tuple[Column, ...] = (attrgetter("nbytes"),)
"""What can still be other about contiguous tensors at the same addresses: they may have been cut, or cut anew."""

ANYWHERE: tuple[Column, ...] = (attrgetter("nbytes"), attrgetter("dtype"), Tensor.get_device, type)
"""What can be other about contiguous tensors."""


def addresses(tensors: Iterable[Tensor]) -> list[int]:
    """Where each tensor's data is."""
    return list(map(Tensor.data_ptr, tensors))


def places(grads: Sequence[Tensor | None]) -> list[int]:
    """The addresses of gradients; 0 where there is none, or none that has one."""
    try:
        where = addresses(grads)  # type: ignore[arg-type]
    except TypeError:  # some are missing
        where = [0 if g is None else g.data_ptr() for g in grads]
    if 0 in where:
        where = [NOWHERE if g is not None and not g.numel() else at for g, at in zip(grads, where)]
    return where


def form(tensor: Tensor) -> tuple[object, ...]:
    """All that an engine was made ready for, but for the address."""
    return type(tensor), tensor.shape, tensor.stride(), tensor.dtype, tensor.device


class Forms:
    """The forms of tensors, in order.

    Args:
        tensors: None for one that is not expected.
        columns: what is looked at of contiguous ones; of others always all.
    """

    def __init__(self, tensors: Sequence[Tensor | None], columns: Sequence[Column]) -> None:
        self._forms = [None if tensor is None else form(tensor) for tensor in tensors]
        present = [tensor for tensor in tensors if tensor is not None]
        self._contiguous = len(present) == len(tensors) and all(map(Tensor.is_contiguous, present))
        self._columns = [(column, list(map(column, present))) for column in columns if self._contiguous]

    def hold(self, tensors: Sequence[Tensor | None], present: Sequence[Tensor]) -> bool:
        """Whether all have the form that they had; a None among them says nothing.

        Args:
            tensors: as many, in the same order.
            present: those that are not None.
        """
        if self._contiguous and len(present) == len(tensors):
            as_known = all(list(map(column, present)) == known for column, known in self._columns)
            return as_known and all(map(Tensor.is_contiguous, present))
        return all(tensor is None or form(tensor) == known for tensor, known in zip(tensors, self._forms))
