"""Gradients of weights that are not formed while only their graph is wanted.

The double backward asks nothing of their values. Of nine matrix multiplications (or convolutions) that it takes for
each one of the forward pass, one computes the gradient of a weight: it is left out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Unformed:
    """In which backward pass they are left out: one alone, not in others that run within it or beside it."""

    def __init__(self) -> None:
        self._task: int | None = None

    def from_here(self, grad: Tensor) -> None:
        """A hook of the tensor that the pass starts from."""
        self._task = torch._C._current_graph_task_id()

    def now(self) -> bool:
        """Whether this is that pass."""
        return self._task == torch._C._current_graph_task_id()


def suits(x: Any, *weights: Any) -> bool:
    """Whether an operation can be ours: on plain tensors of one type, whose weights are where gradients end.

    What is computed from parameters (spectral normalization) needs the gradient's value to go on from there, and so may
    a hook. Those that are None are none.
    """
    return (
        type(x) in (Tensor, nn.Parameter)
        and x.numel() > 0
        and not torch.is_autocast_enabled(x.device.type)
        and all(
            _ends(each) and (each.dtype, each.device) == (x.dtype, x.device) for each in weights if each is not None
        )
    )


def _ends(weight: Any) -> bool:
    return (
        type(weight) in (Tensor, nn.Parameter)
        and weight.is_leaf
        and weight.requires_grad
        and not weight._backward_hooks
    )


def zeros_like(weight: Tensor | None, like: Tensor) -> Tensor | None:
    """In the place of a gradient: of the weight's shape, in no memory."""
    return None if weight is None else like.new_zeros(()).expand(weight.shape)
