"""Operations whose gradients are made to be differentiated once more: the same numbers, with less work.

The double backward goes through the graph of the gradients. By itself torch forms what nobody reads (see `unformed`),
and takes the second derivatives of norms and GELU in many small steps, where a closed form has a few.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from . import attention, batch_norm, convolution, embedding, gelu, layer_norm, linear
from .unformed import Unformed

Operation = Callable[..., Tensor | None]
"""Takes who is asked whether to form, and the operation's arguments; None where it is not for us."""

_OURS: dict[Callable[..., Any], Operation] = {
    F.linear: linear.linear,
    torch.addmm: linear.addmm,
    F.conv2d: convolution.conv2d,
    F.embedding: embedding.embedding,
    F.layer_norm: layer_norm.layer_norm,
    F.batch_norm: batch_norm.batch_norm,
    F.gelu: gelu.gelu,
    F.scaled_dot_product_attention: attention.scaled_dot_product_attention,
}


class MadeForTwice(TorchFunctionMode):
    """Within it, in this thread, what a model calls of these is ours where it can be, else as ever."""

    def __init__(self) -> None:
        super().__init__()
        self.unformed = Unformed()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        ours = _OURS.get(func)
        if ours is not None and torch.is_grad_enabled():
            found = ours(self.unformed, *args, **kwargs)
            if found is not None:
                return found
        return func(*args, **kwargs)
