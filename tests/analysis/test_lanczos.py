"""Lanczos sees what is in a matrix, and no more."""

import pytest
import torch

from hf_winopt.analysis.lanczos import lanczos
from hf_winopt.analysis.quadrature import observe


def symmetric(eigenvalues, seed=0):
    torch.manual_seed(seed)
    turn, _ = torch.linalg.qr(torch.randn(len(eigenvalues), len(eigenvalues), dtype=torch.float64))
    return turn @ torch.diag(torch.as_tensor(eigenvalues, dtype=torch.float64)) @ turn.T


def starts(dim, count, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return (torch.randn(dim, generator=generator, dtype=dtype) for _ in range(count))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_basis_is_orthonormal_long_after_the_first_eigenvalues_have_converged(dtype):
    eigenvalues = torch.cat([torch.linspace(0, 1, 190), torch.tensor([50.0, 100, 1000])])
    matrix, basis = symmetric(eigenvalues).to(dtype), torch.empty(120, 193, dtype=dtype)
    tridiagonal = lanczos(lambda v: matrix @ v, next(starts(193, 1, dtype)), basis)
    torch.testing.assert_close(basis @ basis.T, torch.eye(120, dtype=dtype), atol=1e-5, rtol=0)
    values = tridiagonal.ritz().values
    assert (values > 1.5).sum() == 3  # no copies
    torch.testing.assert_close(values[-3:], eigenvalues[-3:].double(), rtol=1e-6, atol=0)


def test_it_stops_where_nothing_is_left_to_be_seen():
    matrix = symmetric([2.0] * 5 + [3.0] * 5)
    seen = lanczos(lambda v: matrix @ v, next(starts(10, 1)), torch.empty(8, 10, dtype=torch.float64))
    assert seen.remainder == 0
    torch.testing.assert_close(seen.ritz().values, torch.tensor([2.0, 3.0], dtype=torch.float64))


def test_a_vector_that_is_kept_apart_is_not_seen():
    matrix = torch.diag(torch.tensor([5.0, 1.0, 2.0, 3.0]).double())
    basis = torch.zeros(4, 4, dtype=torch.float64)
    basis[0, 0] = 1
    seen = lanczos(lambda v: matrix @ v, torch.ones(4).double(), basis, apart=1)
    torch.testing.assert_close(seen.ritz().values, torch.tensor([1.0, 2.0, 3.0]).double())


def test_copies_of_a_large_eigenvalue_are_counted_each():
    """The first probe sees one of the four, and with rounding perhaps more; the others are for the other probes."""
    eigenvalues = torch.cat([torch.linspace(0, 1, 96), torch.full((4,), 50.0)]).double()
    matrix = symmetric(eigenvalues)
    seen = observe(lambda v: matrix @ v, starts(100, 400), 100, 12, torch.device("cpu"))
    found = (seen.found > 49).sum().item()
    assert found < 4
    share = torch.stack([weights[values > 49].sum() for values, weights in seen.rest]).mean().item()
    copies = found + share * (100 - len(seen.found))
    assert copies == pytest.approx(4, rel=0.1)


def test_what_is_small_is_seen_whole():
    eigenvalues = torch.tensor([-1.0, 0.0, 0.5, 2.0, 7.0]).double()
    matrix = symmetric(eigenvalues)
    seen = observe(lambda v: matrix @ v, starts(5, 3), 5, 80, torch.device("cpu"))
    torch.testing.assert_close(seen.found.sort().values, eigenvalues)
    assert seen.rest == []
