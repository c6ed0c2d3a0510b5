"""Whether the elements of a tensor lie where its address says: compiled code goes by that alone, and cannot see it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor


def has_no_address(tensor: Tensor) -> str | None:
    """Why a tensor's address says nothing of its elements; None where it does.

    So it is with subclasses that are made of other tensors (quantized weights, for example), which have none, and with
    what torch changes only when it is read.
    """
    kind = type(tensor)
    if kind.__torch_dispatch__ is not Tensor.__torch_dispatch__:
        return f"is a {kind.__name__}, which keeps its elements in a way of its own"
    if tensor.layout != torch.strided:
        return f"is of layout {tensor.layout}"
    if tensor.is_neg():
        return "is negated only when it is read"
    if tensor.numel() and not tensor.data_ptr():
        return "has no memory of its own"
    return None


def reaches_beyond(tensor: Tensor) -> bool:
    """Whether a tensor that has an address has more elements than memory, as after its storage was made smaller."""
    if not tensor.numel():
        return False
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride()))
    needed = (tensor.storage_offset() + last + 1) * tensor.element_size()
    return needed > tensor.untyped_storage().nbytes()


def has_values(tensor: Tensor) -> bool:
    """Whether a number of it can be asked for: not of one on the meta device, nor of torch's fake tensors."""
    return not tensor.is_meta and not isinstance(tensor, FakeTensor)
