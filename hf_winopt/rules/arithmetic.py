"""The small operations every rule is written in.

A coefficient is a Python float where the step count is known on the host, and a 0-dim tensor where it must not become a
constant (a compiled step) or where the host does not know it (a norm that lies on an accelerator). The operations take
both, so that a formula is written once; with a float they are one pass over the data.

As in torch itself, `out` names the tensor that takes the result, which may be one of the arguments; without it the
result is new. On a CPU that is a third of a step's time: what is written in place stays in the cache.
"""

from __future__ import annotations

import torch
from torch import Tensor

Coefficient = float | Tensor
Coefficients = dict[str, Coefficient]


def is_known(coefficient: Coefficient, value: float) -> bool:
    """Whether the coefficient is known on the host to be exactly `value`, so that its pass can be left out."""
    return isinstance(coefficient, float) and coefficient == value


def scaled(tensor: Tensor, factor: Coefficient, out: Tensor | None = None) -> Tensor:
    """`factor * tensor`; the tensor itself where the factor is known to be 1."""
    if is_known(factor, 1.0):
        return stored(tensor, out)
    return torch.mul(tensor, factor, out=out)


def add_scaled(tensor: Tensor, other: Tensor, factor: Coefficient, out: Tensor | None = None) -> Tensor:
    """`tensor + factor * other`."""
    if isinstance(factor, float):
        return torch.add(tensor, other, alpha=factor, out=out)
    return torch.add(tensor, factor * other, out=out)


def toward(tensor: Tensor, target: Tensor, weight: Coefficient, out: Tensor | None = None) -> Tensor:
    """`(1 - weight) tensor + weight target`, written so that equal ends stay exactly as they are."""
    if isinstance(weight, float):
        return torch.lerp(tensor, target, weight, out=out)
    return torch.add(
        tensor, weight * (target - tensor), out=out
    )  # torch.lerp would choose per element between two forms


def toward_square(mean: Tensor, root: Tensor, weight: Coefficient, out: Tensor | None = None) -> Tensor:
    """`(1 - weight) mean + weight root^2`, where a mean that is infinite stays so.

    The square of a finite gradient can be too large for a float. As with torch's own optimizers its element then stands
    still; interpolated, `inf + weight (root^2 - inf)`, it would be no number at the next step.
    """
    kept = scaled(mean, 1 - weight, out)
    if isinstance(weight, float):
        return torch.addcmul(kept, root, root, value=weight, out=out)
    return torch.add(kept, weight * root * root, out=out)


def rounded(tensor: Tensor, home: torch.dtype) -> Tensor:
    """`tensor` with the values that it has once it is stored as `home`, in its own type."""
    return tensor if tensor.dtype == home else tensor.to(home).to(tensor.dtype)


def stored(tensor: Tensor, out: Tensor | None) -> Tensor:
    """`tensor`, written to `out` where there is one."""
    return tensor if out is None or out is tensor else out.copy_(tensor)
