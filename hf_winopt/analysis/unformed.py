"""Linear layers whose weight gradients are not formed while only their graph is wanted.

The double backward goes through the graph of the gradients and asks nothing of their values. Of nine matrix
multiplications that it takes for each one of the forward pass, one computes the gradient of a weight: it is left out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Unformed:
    """Whether the gradients of linear weights are left unformed, as `weights_unformed` lets them be."""

    only_graph = False

    @contextmanager
    def graph_is_all(self) -> Iterator[None]:
        """Within it they are zeros, with the graph of the right ones."""
        self.only_graph = True
        try:
            yield
        finally:
            self.only_graph = False


@contextmanager
def weights_unformed(model: nn.Module) -> Iterator[Unformed]:
    """Within it a model's linear layers can leave the gradients of their weights unformed; else they are as ever."""
    unformed = Unformed()
    with ExitStack() as stack:
        for module in model.modules():
            if type(module) in (nn.Linear, _transposed()) and "forward" not in vars(module):
                vars(module)["forward"] = partial(_forward, module, unformed)
                stack.callback(vars(module).pop, "forward")
        yield unformed


def _transposed() -> type[nn.Module] | None:
    """GPT-2's kind of linear layer, where there can be one: its weight is `(in, out)`."""
    return getattr(sys.modules.get("transformers.pytorch_utils"), "Conv1D", None)


def _forward(module: Any, unformed: Unformed, input: Tensor) -> Tensor:
    """Only of a parameter itself: what is computed from parameters (spectral normalization) needs the gradient's value
    to go on from there, and so may a hook."""
    weight, flat = module.weight, input.reshape(-1, input.shape[-1])
    if type(weight) is not nn.Parameter or not weight.requires_grad or weight._backward_hooks:
        return type(module).forward(module, input)
    weight = weight if type(module) is nn.Linear else weight.t()
    return _Linear.apply(flat, weight, module.bias, unformed).view(*input.shape[:-1], len(weight))


class _Linear(torch.autograd.Function):
    """`x @ weight.T + bias`, with `x` `(n, in)`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, unformed: Unformed) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.unformed = unformed
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        (grad,) = grads
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias, _ = ctx.needs_input_grad
        return (
            grad @ weight if of_x else None,
            _WeightGradient.apply(grad, x, ctx.unformed.only_graph) if of_weight else None,
            grad.sum(0) if of_bias else None,
            None,
        )


class _WeightGradient(torch.autograd.Function):
    """`grad.T @ x`, or zeros that take no memory in its place."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor, left_out: bool) -> Tensor:
        ctx.save_for_backward(grad, x)
        return grad.new_zeros(()).expand(grad.shape[1], x.shape[1]) if left_out else grad.t() @ x

    @staticmethod
    def backward(ctx: Any, *along: Tensor) -> tuple[Tensor, Tensor, None]:
        (v,) = along
        grad, x = ctx.saved_tensors
        return x @ v.t(), grad @ v, None
