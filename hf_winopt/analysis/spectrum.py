"""The spectrum that Lanczos has seen: eigenvalues with weights, and what can be said of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .generalization import GeneralizationTerm, generalization_term
from .quadrature import Seen


@dataclass(frozen=True)
class Spectrum:
    """The spectral density of a symmetric matrix by stochastic Lanczos quadrature.

    Args:
        dim: of the matrix.
        examples: over how many examples the loss is the mean.
        eigenvalues: what the probes saw, float64, ascending.
        weights: the share of the spectrum that each stands for; they add up to 1.
        top_eigenvalues: the largest of the matrix, descending, and `top_errors`, bounds of how far each is from one.
        trace: of the matrix, and `trace_error`, the standard error of that over the probes (nan for two or less).
        resolution: below this, products in the model's precision cannot tell an eigenvalue from 0.
        probes: how many there were, `steps` of Lanczos each, drawn by `seed`.
    """

    dim: int
    examples: int
    eigenvalues: Tensor
    weights: Tensor
    top_eigenvalues: Tensor
    top_errors: Tensor
    trace: float
    trace_error: float
    resolution: float
    probes: int
    steps: int
    seed: int

    @classmethod
    def of(
        cls, seen: Seen, dim: int, examples: int, dtype: torch.dtype, *, top: int, probes: int, steps: int, seed: int
    ) -> Spectrum:
        """From what was seen; `top` is how many of the largest eigenvalues are wanted."""
        count, found = len(seen.rest), seen.found
        values = torch.cat([found, *(values for values, _ in seen.rest)])
        left = (dim - len(found)) / dim
        weights = torch.cat([torch.full_like(found, 1 / dim), *(left / count * mine for _, mine in seen.rest)])
        order = values.argsort()
        traces = torch.tensor([left * dim * (mine @ of).item() for of, mine in seen.rest] or [0.0]).double()
        return cls(
            dim,
            examples,
            values[order],
            weights[order],
            top_eigenvalues=seen.first.values.flip(0)[:top],
            top_errors=seen.first.errors.flip(0)[:top],
            trace=(found.sum() + traces.mean()).item(),
            trace_error=_standard_error(traces) if left else 0.0,
            resolution=10 * torch.finfo(dtype).eps * values.abs().max().item(),
            probes=probes,
            steps=steps,
            seed=seed,
        )

    def moment(self, order: int) -> float:
        """The mean of `eigenvalue^order` over the whole spectrum: `trace(H^order) / dim`."""
        return (self.weights @ self.eigenvalues**order).item()

    def share(self, low: float = -math.inf, high: float = math.inf) -> float:
        """The share of the eigenvalues within `[low, high]`; what is within `resolution` of 0 counts as 0.

        Where most of a spectrum lies next to 0, one value stands for much of it, on whichever side of 0 Lanczos put it:
        a limit at 0 divides it by chance. `share(-1, 1)`, the singular values in [0, 1], is free of that.
        """
        values = torch.where(self.eigenvalues.abs() <= self.resolution, 0.0, self.eigenvalues)
        return self.weights[(values >= low) & (values <= high)].sum().item()

    @property
    def share_negative(self) -> float:
        """The share of the eigenvalues below 0, by more than the resolution; see `share` on limits at 0."""
        return self.weights[self.eigenvalues < -self.resolution].sum().item()

    def density(self, points: Tensor, width: float) -> Tensor:
        """The density at these points, each eigenvalue spread as a Gaussian of this standard deviation."""
        distance = (points.double().unsqueeze(-1) - self.eigenvalues) / width
        bells = torch.exp(-0.5 * distance.square()) / (width * math.sqrt(2 * math.pi))
        return bells @ self.weights

    def generalization_term(
        self, *, lr: float, weight_decay: float, batch_size: int, rho: float, decay: str = "decoupled"
    ) -> GeneralizationTerm:
        """The term of Corollary 3 for a run with these numbers; see `generalization_term`."""
        return generalization_term(
            self.eigenvalues,
            self.weights,
            lr=lr,
            weight_decay=weight_decay,
            batch_size=batch_size,
            rho=rho,
            decay=decay,
            smallest=self.resolution,
        )

    def to_dict(self) -> dict[str, Any]:
        """All of it in plain Python, for JSON."""
        return {
            "dim": self.dim,
            "examples": self.examples,
            "top_eigenvalues": self.top_eigenvalues.tolist(),
            "top_errors": self.top_errors.tolist(),
            "trace": self.trace,
            "trace_error": self.trace_error,
            "moments": {str(order): self.moment(order) for order in range(1, 5)},
            "share_in_0_1": self.share(0, 1),
            "share_singular_in_0_1": self.share(-1, 1),
            "share_negative": self.share_negative,
            "resolution": self.resolution,
            "probes": self.probes,
            "steps": self.steps,
            "seed": self.seed,
            "eigenvalues": self.eigenvalues.tolist(),
            "weights": self.weights.tolist(),
        }


def _standard_error(estimates: Tensor) -> float:
    return estimates.std().item() / math.sqrt(len(estimates)) if len(estimates) > 1 else math.nan
