"""Lanczos with full reorthogonalization: a large symmetric matrix, seen through its products, as a small one."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]


class Ritz(NamedTuple):
    """What a tridiagonal matrix says of the large one; all float64, by ascending value."""

    values: Tensor
    weights: Tensor
    """The share of the first vector in the direction of each; they add up to 1."""
    errors: Tensor
    """How far each value is from an eigenvalue, at most."""
    vectors: Tensor
    """In the columns, each by what it has of every vector of the basis."""


class Tridiagonal(NamedTuple):
    """`Q^T H Q` for the basis `Q`: float64, on the CPU, as many numbers as there were steps, and one less."""

    diagonal: Tensor
    off_diagonal: Tensor
    remainder: float
    """The length of what the last product has outside of the basis; 0 where the basis holds all there is to see."""

    def ritz(self) -> Ritz:
        matrix = torch.diag(self.diagonal) + torch.diag(self.off_diagonal, 1) + torch.diag(self.off_diagonal, -1)
        values, vectors = torch.linalg.eigh(matrix)
        return Ritz(values, vectors[0].square(), self.remainder * vectors[-1].abs(), vectors)


def lanczos(product: Product, start: Tensor, basis: Tensor, apart: int = 0) -> Tridiagonal:
    """Steps of Lanczos from a vector, as many as the basis has room for; fewer where nothing is left to be seen.

    Every vector is orthogonalized against all before it, twice: else copies of the eigenvalues that have converged
    would come up again and again.

    Args:
        product: the matrix, as `v -> H v`.
        start: `(dim,)`; what of it lies in the rows that are apart is taken out, and what is left must not be 0.
        basis: `(rows, dim)`, where the vectors are kept; of the type of `start`, on any device.
        apart: so many rows from the first are orthonormal vectors that all others keep away from.
    """
    w = start.to(basis.device, copy=True)
    length = _keep_away(w, basis[:apart])[1]
    diagonal: list[float] = []
    lengths: list[float] = []
    for row in range(apart, len(basis)):
        torch.div(w, length, out=basis[row])
        w = product(basis[row].to(start.device)).to(basis.device)
        overlaps, length = _keep_away(w, basis[: row + 1])
        diagonal.append(overlaps[row].item())
        lengths.append(length)
        if length <= 100 * torch.finfo(start.dtype).eps * max(map(abs, [*diagonal, *lengths])):
            lengths[-1] = 0.0
            break
    *between, remainder = lengths
    return Tridiagonal(
        torch.tensor(diagonal, dtype=torch.float64), torch.tensor(between, dtype=torch.float64), remainder
    )


def _keep_away(w: Tensor, basis: Tensor) -> tuple[Tensor, float]:
    """Take out of `w` what it has along the rows: how much that was, and the length of what is left, in float64."""
    overlaps = torch.zeros(len(basis), dtype=torch.float64)
    for _ in range(2):
        overlap = basis @ w
        w.sub_(overlap @ basis)
        overlaps += overlap.double().cpu()
    return overlaps, torch.linalg.vector_norm(w, dtype=torch.float64).item()
