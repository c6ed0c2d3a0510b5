"""For losses that take gradients themselves: a second derivative that can be differentiated once more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def by_torch(
    function: Callable[..., Any], inputs: Sequence[Tensor], along: Sequence[Tensor | None]
) -> tuple[Tensor, ...]:
    """Backward through `function(*inputs)` by torch's own steps, in a graph of its own; for all of the inputs."""
    # of themselves: one input may come from another by a way that is not the function's
    inputs = [t.view_as(t) if t.requires_grad else t.detach().requires_grad_() for t in inputs]
    return torch.autograd.grad(function(*inputs), inputs, along, create_graph=True)
