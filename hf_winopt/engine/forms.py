"""What compiled code takes for granted of tensors, and whether it is still so.

Asked of all parameters and gradients at every step: the loops here run in C.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter

from torch import Tensor

NOWHERE = 16
"""Stands for the address of a gradient without elements, which has none; 0 says that there is no gradient."""

_shape, _dtype = attrgetter("shape"), attrgetter("dtype")


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
    """The forms of tensors, in order; None of one that is not expected."""

    def __init__(self, tensors: Sequence[Tensor | None]) -> None:
        self._forms = [None if tensor is None else form(tensor) for tensor in tensors]
        present = [tensor for tensor in tensors if tensor is not None]
        self._columns = None
        if len(present) == len(tensors) and all(map(Tensor.is_contiguous, present)):
            self._columns = _columns(present)

    def hold(self, tensors: Sequence[Tensor | None], present: Sequence[Tensor]) -> bool:
        """Whether all have the form that they had; a None among them says nothing.

        Args:
            tensors: as many, in the same order.
            present: those that are not None.
        """
        if self._columns is not None and len(present) == len(tensors):
            return all(map(Tensor.is_contiguous, present)) and _columns(present) == self._columns
        return all(tensor is None or form(tensor) == known for tensor, known in zip(tensors, self._forms))


def _columns(tensors: Sequence[Tensor]) -> tuple[object, ...]:
    """The forms of contiguous tensors, whose strides follow from their shapes."""
    devices = list(map(Tensor.get_device, tensors))
    return list(map(_shape, tensors)), list(map(_dtype, tensors)), devices, list(map(type, tensors))
