"""Stochastic Lanczos quadrature, the largest eigenvalues counted apart.

A random vector has a random share in the direction of each eigenvector, about `1 / dim`. For the many eigenvalues of
the bulk that evens out; of the few large ones, which make most of the higher moments, it would leave nothing certain.
So the first probe finds those, and their eigenvectors: each is worth `1 / dim` exactly, and the other probes keep away
from them and measure the rest. Nothing is assumed of the spectrum: further copies of an eigenvalue are in the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .lanczos import Product, Ritz, Tridiagonal, lanczos

CONVERGED = 1e-3
"""An eigenvalue counts as found where the bound of its error is at most so much of it; the error itself is smaller."""

COLUMNS = 1 << 20
"""Elements of each vector that are turned at a time."""


class Seen(NamedTuple):
    """What was seen of a matrix.

    Args:
        first: all that the first probe saw.
        found: the eigenvalues that were counted apart, float64.
        rest: the values and weights of the others, by probe; the weights of each add up to 1.
    """

    first: Ritz
    found: Tensor
    rest: list[tuple[Tensor, Tensor]]


def observe(product: Product, starts: Iterator[Tensor], dim: int, steps: int, storage: torch.device) -> Seen:
    """Look at a matrix from random vectors, the first of which finds the eigenvalues that are counted apart.

    Args:
        product: the matrix, as `v -> H v`.
        starts: the random vectors, `(dim,)`.
        dim: of the matrix.
        steps: so many vectors are held, on `storage`; at most half of them for eigenvectors.
    """
    start = next(starts)
    basis = torch.empty(min(steps, dim), dim, dtype=start.dtype, device=storage)
    tridiagonal = lanczos(product, start, basis)
    first = tridiagonal.ritz()
    apart = _converged(first, len(basis) if tridiagonal.remainder == 0 else len(basis) // 2)
    found = first.values[apart]
    if len(found) == dim:
        return Seen(first, found, [])
    _turn(basis, first.vectors[:, apart])
    rest = [_without(first, apart)]
    others = [_measure(lanczos(product, start, basis, len(found))) for start in starts]
    # the first has nothing of further copies of the eigenvalues that it found: it counts where there is no other
    return Seen(first, found, others or rest)


def _converged(ritz: Ritz, at_most: int) -> Tensor:
    """The places of the largest values, by amount, that are right."""
    right = ritz.errors <= CONVERGED * ritz.values.abs()
    by_amount = ritz.values.abs().argsort(descending=True)
    return by_amount[right[by_amount]][:at_most]


def _turn(basis: Tensor, vectors: Tensor) -> None:
    """Put the Ritz vectors into the first rows, in place: a second basis would take as much memory again."""
    mixing = vectors.T.to(basis.device, basis.dtype)
    for part in basis[: vectors.shape[0]].split(COLUMNS, dim=1):
        part[: len(mixing)] = mixing @ part


def _without(ritz: Ritz, apart: Tensor) -> tuple[Tensor, Tensor]:
    others = torch.ones(len(ritz.values), dtype=torch.bool)
    others[apart] = False
    weights = ritz.weights[others]
    return ritz.values[others], weights / weights.sum()


def _measure(tridiagonal: Tridiagonal) -> tuple[Tensor, Tensor]:
    values, weights, *_ = tridiagonal.ritz()
    return values, weights
