"""What the parameters of an optimizer and their gradients may be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from ..engine import DTYPES


def check_parameters(params: Sequence[Tensor]) -> None:
    """Check the parameters of one group.

    Raises:
        TypeError: a type that is not of `DTYPES`.
        ValueError: a parameter twice.
    """
    for p in params:
        if p.dtype not in DTYPES:
            right = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
            raise TypeError(f"params must be of dtype {right}; got a parameter of {p.dtype}")
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
