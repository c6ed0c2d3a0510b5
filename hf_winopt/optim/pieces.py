"""Parameters that are pieces of others: what is done element by element is right on them, a sum over a whole is not.

DeepSpeed puts flat pieces in the place of all parameters of a group, FSDP1 hands them out from the start, and
`ZeroRedundancyOptimizer` gives each process some of the parameters only. None of them tells what a piece is a piece of,
so what needs the whole is refused, rather than taken of the piece.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

from ..engine import is_sharded
from ..rules import Rule

_OF_FSDP1 = ("_is_flat_param", "_fsdp_flattened")  # on its flat parameters, and on views into them

_SUMS = {
    "agr": ("the sum of the gradient of a whole parameter (AGR)", "an optimizer without AGR"),
    "adal": ("the sum of the gradient of a whole parameter (AdaL)", "another optimizer, such as adamw_win"),
    "trust_ratio": ("norms of whole parameters (LAMB)", "another optimizer, such as adamw_win"),
    "max_grad_norm": ("the norm of all gradients (max_grad_norm)", "the clipping of Trainer, Accelerate or DeepSpeed"),
    "skip_nonfinite": ("the norm of all gradients (skip_nonfinite)", "skip_nonfinite=False"),
}


def are_pieces(params: Sequence[Tensor], given: Collection[int]) -> bool:
    """Whether parameters are flat pieces of others.

    Args:
        params: of one group, as they are now.
        given: the identities of the parameters that the optimizer was given.
    """
    if any(getattr(p, mark, False) for p in params for mark in _OF_FSDP1):
        return True
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return False  # with nobody to share them
    # a bias that the user puts into a group, or in the place of another, is a parameter, or has others beside it
    return bool(params) and all(
        id(p) not in given and p.ndim == 1 and not isinstance(p, Parameter) and not is_sharded(p) for p in params
    )


def refuse(optimizer: str, why: str, rules: Iterable[Rule], norms: Iterable[str]) -> None:
    """Refuse pieces, if a rule, or an option that asks for the norm of all gradients, needs the whole.

    Raises:
        RuntimeError: names the optimizer, the reason and what to use instead.
    """
    asked = [rule.transform if rule.transform != "none" else "trust_ratio" for rule in rules]
    for each in [*asked, *norms]:
        what, instead = _SUMS[each]
        raise RuntimeError(f"{optimizer} takes {what}, but {why}. Use FSDP2 or DDP, or {instead}")
