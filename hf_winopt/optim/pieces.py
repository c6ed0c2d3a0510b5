"""Parameters that are pieces of others: what is done element by element is right on them, a sum over a whole is not.

DeepSpeed puts flat pieces in the place of all parameters of a group, FSDP1 hands them out from the start, and
`ZeroRedundancyOptimizer` gives each process some of the parameters only. None of them tells what a piece is a piece of,
so what needs the whole is refused, rather than taken of the piece.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from torch import Tensor

from ..engine import is_sharded
from ..rules import Rule

OF_FSDP1 = ("_is_flat_param", "_fsdp_flattened")  # on its flat parameters, and on views into them

_SUMS = {
    "agr": ("the sum of the gradient of a whole parameter (AGR)", "an optimizer without AGR"),
    "adal": ("the sum of the gradient of a whole parameter (AdaL)", "another optimizer, such as adamw_win"),
    "trust_ratio": ("norms of whole parameters (LAMB)", "another optimizer, such as adamw_win"),
    "max_grad_norm": ("the norm of all gradients (max_grad_norm)", "the clipping of Trainer, Accelerate or DeepSpeed"),
    "skip_nonfinite": ("the norm of all gradients (skip_nonfinite)", "skip_nonfinite=False"),
}


class Given(NamedTuple):
    """What a parameter group was given at first: the identities of its parameters, and whether any is a matrix or more.

    Later a user may put a bias in it, or another in the place of one; who cuts parameters into flat pieces puts those
    in the place of all.
    """

    identities: frozenset[int]
    matrices: bool

    @classmethod
    def of(cls, params: Iterable[Tensor]) -> Given:
        params = list(params)
        return cls(frozenset(map(id, params)), any(p.ndim >= 2 for p in params))

    def gone_from(self, params: Sequence[Tensor]) -> bool:
        """Whether it was given matrices, and has nothing of what it was given, nor other matrices."""
        return self.matrices and not any(id(p) in self.identities or p.ndim >= 2 for p in params)


def are_pieces(groups: Sequence[Sequence[Tensor]], given: Sequence[Given]) -> bool:
    """Whether parameters are flat pieces of others.

    Args:
        groups: the parameters of each group, as they are now.
        given: what each was given.
    """
    if any(getattr(p, mark, False) for params in groups for p in params for mark in OF_FSDP1):
        return True
    known = frozenset().union(*(each.identities for each in given))
    others = [params for params in groups if params and not any(id(p) in known or is_sharded(p) for p in params)]
    flat = any(all(p.ndim == 1 for p in params) for params in others)
    return flat and any(each.gone_from(params) for each, params in zip(given, groups))


def kept_whole(levels: Iterable[str]) -> str:
    """What is said of a level of state that pieces cannot have: where a row begins, none of them tells."""
    asked = " and ".join(f"state={level!r}" for level in sorted(levels))
    return f"{asked} has no effect on flat pieces, as DeepSpeed and FSDP1 make them: their state is float32. Use FSDP2"


def refuse(optimizer: str, why: str, rules: Iterable[Rule], norms: Iterable[str]) -> None:
    """Refuse pieces, if a rule, or an option that asks for the norm of all gradients, needs the whole.

    Raises:
        RuntimeError: names the optimizer, the reason and what to use instead.
    """
    asked = [rule.transform if rule.transform != "none" else "trust_ratio" for rule in rules]
    for each in [*asked, *norms]:
        what, instead = _SUMS[each]
        raise RuntimeError(f"{optimizer} takes {what}, but {why}. Use FSDP2 or DDP, or {instead}")
