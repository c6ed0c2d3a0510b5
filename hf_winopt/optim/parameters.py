"""What the parameters of an optimizer and their gradients may be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..engine import DTYPES


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


def check_parameters(params: Sequence[Tensor]) -> None:
    """Check the parameters of one group.

    Raises:
        TypeError: a type that is not of `DTYPES`.
        ValueError: a parameter twice, one that is not dense, or one whose elements share their memory.
    """
    for p in params:
        if p.dtype not in DTYPES:
            right = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
            raise TypeError(f"params must be of dtype {right}; got a parameter of {p.dtype}")
        if p.layout != torch.strided:
            raise ValueError(f"params must be dense; got a parameter of layout {p.layout}")
        if any(stride == 0 and size > 1 for stride, size in zip(p.stride(), p.shape)):
            raise ValueError(
                "params must have memory for every element; got an expanded parameter of "
                f"shape {tuple(p.shape)} and strides {p.stride()} (clone() it)"
            )
    if len(set(params)) < len(params):
        raise ValueError("params must be distinct; got a parameter twice in one group")


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
