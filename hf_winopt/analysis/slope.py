"""The slope of a loss along a direction of the parameters; its gradient is the Hessian's product with that direction.

Forward mode carries the slope along with the loss, and one backward pass of it is all that is left to do. The gradient
of the loss, with which a double backward begins, is never formed: where that takes nine matrix multiplications for each
one of the forward pass, this takes eight. torch's forward mode has gaps, and some layers whose slope has a derivative
that is wrong. The known ones are written out here; `one_batch` finds others by comparing with the double backward.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

Loss = Callable[[nn.Module, Any], Tensor]
"""`loss(model, batch)`: the mean loss over the examples of a batch, a scalar."""


def loss_and_slope(model: nn.Module, loss: Loss, batch: Any, directions: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The loss of a batch, and how fast it grows along the directions; both can be differentiated.

    Args:
        model: whose parameters are moved.
        loss: of a model and a batch, a scalar.
        directions: by the name of each parameter that moves, of its shape.

    Raises:
        RuntimeError: an operation without forward mode (NotImplementedError is one too).
    """
    params = dict(model.named_parameters())
    moving = {f"model.{name}": params[name] for name in directions}
    along = {f"model.{name}": direction for name, direction in directions.items()}
    whole = _Whole(model, loss)
    with _WrittenOut():
        there, slope = jvp(lambda moved: functional_call(whole, moved, (batch,)), (moving,), (along,))[:2]
    return there, slope


class _Whole(nn.Module):
    """A model with its loss as one module, that `functional_call` can give other parameters."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model = model
        self._loss = loss

    def forward(self, batch: Any) -> Tensor:
        return self._loss(self.model, batch)


class _WrittenOut(TorchFunctionMode):
    """Within it the layers of `WRITTEN_OUT` are computed as written there."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return WRITTEN_OUT.get(func, func)(*args, **(kwargs or {}))


class _Normal(torch.autograd.Function):
    """`(x - mean) / deviation`, whose derivative is symmetric: one kernel is that of both directions."""

    @staticmethod
    def forward(x: Tensor, shape: list[int], eps: float) -> tuple[Tensor, Tensor, Tensor]:
        return torch.native_layer_norm(x, shape, None, None, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, list[int], float], output: tuple[Tensor, Tensor, Tensor]) -> None:
        (x, ctx.shape, _), (_, *moments) = inputs, output
        ctx.mark_non_differentiable(*moments)  # the kernel's own derivative knows what they are of x
        ctx.save_for_backward(x, *moments)
        ctx.save_for_forward(x, *moments)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor, None, None]:
        return _Normal.derivative(ctx, grad), None, None

    @staticmethod
    def jvp(ctx: Any, along: Tensor, *_: Any) -> tuple[Tensor, None, None]:
        return _Normal.derivative(ctx, along), None, None

    @staticmethod
    def derivative(ctx: Any, v: Tensor) -> Tensor:
        x, *moments = ctx.saved_tensors
        wanted = [True, False, False]
        return torch.ops.aten.native_layer_norm_backward(v.contiguous(), x, ctx.shape, *moments, None, None, wanted)[0]


def _layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """torch's own keeps mean and deviation as constants when its slope is differentiated."""
    normal = _Normal.apply(input, list(normalized_shape), eps)[0]
    if weight is not None:
        normal = normal * weight
    return normal if bias is None else normal + bias


def _embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None, *args: Any, **kwargs: Any) -> Tensor:
    """torch's has no gradient at `padding_idx`, but a slope: both or neither make the Hessian symmetric."""
    rows = _torch_embedding(input, weight, None, *args, **kwargs)
    if padding_idx is None:
        return rows
    return torch.where((input == padding_idx % len(weight)).unsqueeze(-1), rows.detach(), rows)


_torch_embedding = F.embedding

WRITTEN_OUT: dict[Any, Callable[..., Any]] = {F.layer_norm: _layer_norm, F.embedding: _embedding}
