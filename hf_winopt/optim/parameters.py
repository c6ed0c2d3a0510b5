"""What the parameters of an optimizer and their gradients may be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from .. import engine


def check_form(group: Any) -> None:
    """Check that a parameter group is one, before its parameters are looked at.

    Raises:
        TypeError: not a dict with `params` that can be walked.
        ValueError: a dict without `params`.
    """
    if not isinstance(group, dict):
        raise TypeError(f"param_group must be a dict with 'params'; got {group!r}")
    if "params" not in group:
        raise ValueError(f"param_group must have 'params'; got only {sorted(map(str, group))}")
    if not isinstance(group["params"], Iterable):
        raise TypeError(f"params must be a list of parameters; got {group['params']!r}")


def check_distinct(params: Sequence[Tensor]) -> None:
    """
    Raises:
        ValueError: a parameter twice.
    """
    if len(set(params)) < len(params):
        raise ValueError("params must be distinct; got a parameter twice in one group")


def check_trained(params: Iterable[Tensor]) -> None:
    """Check the parameters that are trained; those that are frozen may be anything (quantized, for example).

    Raises:
        TypeError: a type that is not of `engine.DTYPES`.
        ValueError: a parameter that is not dense, or one whose elements share their memory.
    """
    for p in params:
        if is_lazy(p):  # has no shape before its first batch
            continue
        if p.dtype not in engine.DTYPES:
            right = ", ".join(str(dtype).removeprefix("torch.") for dtype in engine.DTYPES)
            raise TypeError(f"params must be of dtype {right}; got a parameter of {p.dtype}")
        if p.layout != torch.strided:
            raise ValueError(f"params must be dense; got a parameter of layout {p.layout}")
        if any(stride == 0 and size > 1 for stride, size in zip(p.stride(), p.shape)):
            raise ValueError(
                "params must have memory for every element; got an expanded parameter of "
                f"shape {tuple(p.shape)} and strides {p.stride()} (clone() it)"
            )


def refuse_sparse(grads: Iterable[Tensor | None], optimizer: str) -> None:
    """
    Raises:
        ValueError: a sparse gradient.
    """
    if any(g is not None and g.is_sparse for g in grads):
        raise ValueError(
            f"{optimizer} does not take sparse gradients. Use a dense embedding (sparse=False), "
            "or torch.optim.SparseAdam for the sparse parameters"
        )


def check_memory(z: Tensor, g: Tensor | None) -> None:
    """Check that a parameter, or the shard of one, and its gradient belong together, and have all of their elements.

    Raises:
        ValueError: they do not, as where `.data` has been replaced since the gradient was found.
    """
    if g is not None and (g.shape, g.device) != (z.shape, z.device):
        raise ValueError(
            f"the gradient of a parameter must be of its shape {tuple(z.shape)}, on {z.device}; got one of shape "
            f"{tuple(g.shape)}, on {g.device}"
        )
    for what, tensor in (("a parameter", z), ("a gradient", g)):
        if tensor is not None and engine.has_no_address(tensor) is None and engine.reaches_beyond(tensor):
            raise ValueError(f"{what} must have memory for every element; got shape {tuple(tensor.shape)} and less")
