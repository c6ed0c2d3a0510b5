"""What the parameters of an optimizer and their gradients may be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from ..engine import DTYPES


def refuse_sharded(params: Iterable[Tensor]) -> None:
    """
    Raises:
        TypeError: a parameter that is a DTensor.
    """
    if any(hasattr(p, "to_local") for p in params):
        raise TypeError(
            "params must be whole tensors; got a DTensor (FSDP2 or tensor parallel), which is not stepped yet. "
            "Use DDP, or torch.optim.AdamW with sharded parameters"
        )


def check_parameters(params: Sequence[Tensor]) -> None:
    """Check the parameters of one group.

    Raises:
        TypeError: a type that is not of `DTYPES`, a DTensor.
        ValueError: a parameter twice.
    """
    for p in params:
        if p.dtype not in DTYPES:
            right = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
            raise TypeError(f"params must be of dtype {right}; got a parameter of {p.dtype}")
    if len(set(params)) < len(params):
        raise ValueError("params must be distinct; got a parameter twice in one group")
    refuse_sharded(params)


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
