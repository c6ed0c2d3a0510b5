"""The term of the generalization bound in which AdamW and l2-Adam differ (the AdamW paper, Corollary 3)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

DECAYS = ("decoupled", "l2")


@dataclass(frozen=True)
class GeneralizationTerm:
    """`err = sum_i h(x_i)`, `h(x) = log x + 1/x`, over the singular values `sigma_i` of the Hessian.

    Args:
        per_dimension: `err / dim`, by which models of different size compare.
        decay: "decoupled" (AdamW) or "l2" (l2-Adam).
        share_below_1: the share of dimensions with `x_i < 1`, where the corollary does not hold.
        share_at_floor: the share with a singular value that was too small to tell from 0, and was taken as `smallest`.
        smallest: that value.
    """

    per_dimension: float
    decay: str
    share_below_1: float
    share_at_floor: float
    smallest: float

    @property
    def assumption_holds(self) -> bool:
        """Whether `x_i >= 1` everywhere, as the corollary asks."""
        return self.share_below_1 == 0

    def __str__(self) -> str:
        said = f"err {self.per_dimension:.4g} per dimension ({self.decay} decay)"
        if not self.assumption_holds:
            said += (
                f"; x_i < 1 in {100 * self.share_below_1:.3g} % of the dimensions: the corollary does not hold there"
            )
        return said


def check_run(*, lr: float, weight_decay: float, batch_size: int, rho: float) -> None:
    """Check the numbers of a run, before hours are spent on its spectrum.

    Raises:
        ValueError: a number out of range, named with its value.
    """
    for name, value in (("lr", lr), ("batch_size", batch_size), ("rho", rho)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be a finite number > 0; got {value!r}")
    if not (math.isfinite(weight_decay) and weight_decay >= 0):
        raise ValueError(f"weight_decay must be a finite number >= 0; got {weight_decay!r}")


def generalization_term(
    eigenvalues: Tensor,
    weights: Tensor,
    *,
    lr: float,
    weight_decay: float,
    batch_size: int,
    rho: float,
    decay: str = "decoupled",
    smallest: float = 0.0,
) -> GeneralizationTerm:
    """The term of Corollary 3.

    With the singular values `sigma`, `b` the batch size, `eta` the learning rate and `lam` the weight decay:
    `x = 2 rho b (sigma^(1/2) + lam) / eta` for AdamW, `x = 2 rho b (sigma^(1/2) + lam sigma^(-1/2)) / eta` for l2-Adam.

    Args:
        eigenvalues: of the Hessian, float64; the singular values are their absolute values.
        weights: the share of the dimensions that each stands for; they add up to 1.
        lr, weight_decay, batch_size: of the run.
        rho: the paper's constant, stated by who compares: the same for all.
        decay: "decoupled" or "l2".
        smallest: smaller singular values count as this: l2's term grows without bound towards 0.

    Raises:
        ValueError: a number out of range, named with its value.
    """
    check_run(lr=lr, weight_decay=weight_decay, batch_size=batch_size, rho=rho)
    if not (math.isfinite(smallest) and smallest >= 0):
        raise ValueError(f"smallest must be a finite number >= 0; got {smallest!r}")
    if decay not in DECAYS:
        raise ValueError(f"decay must be one of {', '.join(map(repr, DECAYS))}; got {decay!r}")
    sigma = eigenvalues.double().abs()
    at_floor = sigma <= smallest
    root = torch.where(at_floor, smallest, sigma).sqrt()
    x = 2 * rho * batch_size / lr * (root + (weight_decay if decay == "decoupled" else weight_decay / root))
    return GeneralizationTerm(
        per_dimension=(weights @ (x.log() + 1 / x)).item(),
        decay=decay,
        share_below_1=weights[x < 1].sum().item(),
        share_at_floor=weights[at_floor].sum().item(),
        smallest=smallest,
    )
