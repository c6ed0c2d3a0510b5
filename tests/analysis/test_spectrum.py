"""The spectrum against the exact Hessian, dense and in float64, of nets small enough to have one."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from hf_winopt.analysis import hessian_spectrum
from tests.analysis.problems import classifier, cross_entropy, exact_hessian, squares, wasserstein


@pytest.fixture(scope="module", params=[(torch.float64, (12, 24, 24, 5)), (torch.float32, (10, 28, 28, 24, 6))])
def both(request):
    """The spectrum as it is estimated, and as it is."""
    dtype, widths = request.param
    net, batches = classifier(dtype, widths)
    seen = hessian_spectrum(net, batches, cross_entropy, progress=False)
    return seen, torch.linalg.eigvalsh(exact_hessian(net, batches, cross_entropy))


def test_the_largest_eigenvalues(both):
    seen, exact = both
    assert 1000 < seen.dim == len(exact) <= 2000
    torch.testing.assert_close(seen.top_eigenvalues, exact.flip(0)[:10], rtol=1e-4, atol=0)
    assert ((seen.top_eigenvalues - exact.flip(0)[:10]).abs() <= seen.top_errors + 1e-5 * exact[-1]).all()


def test_the_trace(both):
    seen, exact = both
    assert 0 < seen.trace_error < 0.03 * seen.trace
    assert abs(seen.trace - exact.sum().item()) < 2 * seen.trace_error


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_the_moments(both, order):
    seen, exact = both
    assert seen.moment(order) == pytest.approx((exact**order).mean().item(), rel=0.05)


def test_the_density(both):
    seen, exact = both
    assert seen.weights.sum() == pytest.approx(1)
    assert wasserstein(seen.eigenvalues, seen.weights, exact) < 0.06 * exact.abs().mean()
    points = torch.linspace(-1, 2 * seen.top_eigenvalues[0].item(), 4001, dtype=torch.float64)
    drawn = seen.density(points, 0.02)
    assert torch.trapezoid(drawn, points).item() == pytest.approx(1, abs=1e-3)


def test_shares(both):
    seen, exact = both
    assert seen.share() == pytest.approx(1)
    big = 0.02 * exact[-1].item()
    assert seen.share(big) == pytest.approx((exact >= big).double().mean().item(), abs=0.005)
    assert seen.share(0, 1) + seen.share_negative == pytest.approx(1)


def test_linear_regression_has_its_hessian_in_closed_form():
    """`X^T X / n`, once for each output."""
    torch.manual_seed(0)
    inputs = torch.randn(200, 60, dtype=torch.float64) * torch.linspace(0.1, 3, 60, dtype=torch.float64)
    targets = torch.randn(200, 3, dtype=torch.float64)
    model = nn.Linear(60, 3, bias=False).double()
    seen = hessian_spectrum(model, list(zip(inputs.split(64), targets.split(64))), squares, probes=30, progress=False)
    once = torch.linalg.eigvalsh(inputs.T @ inputs / 200)
    exact = once.repeat_interleave(3)
    assert seen.top_eigenvalues[0].item() == pytest.approx(exact[-1].item(), rel=1e-10)
    assert seen.moment(1) == pytest.approx(exact.mean().item(), rel=0.05)
    assert seen.moment(4) == pytest.approx((exact**4).mean().item(), rel=0.1)
    assert abs(seen.trace - exact.sum().item()) < 2 * seen.trace_error
    assert seen.share_negative == 0


def test_the_same_seed_gives_the_same_spectrum_and_another_another():
    net, batches = classifier(torch.float32, (4, 6, 3))
    first, again, other = (
        hessian_spectrum(net, batches, cross_entropy, probes=2, steps=8, seed=seed, progress=False)
        for seed in (0, 0, 1)
    )
    assert torch.equal(first.eigenvalues, again.eigenvalues) and torch.equal(first.weights, again.weights)
    assert not torch.equal(first.weights, other.weights)


def test_one_probe_is_enough_for_the_largest_eigenvalues_and_has_no_error_to_state():
    net, batches = classifier(torch.float64)
    seen = hessian_spectrum(net, batches, cross_entropy, probes=1, progress=False)
    exact = torch.linalg.eigvalsh(exact_hessian(net, batches, cross_entropy))
    torch.testing.assert_close(seen.top_eigenvalues, exact.flip(0)[:10], rtol=1e-4, atol=0)
    assert math.isnan(seen.trace_error)
    assert seen.moment(2) == pytest.approx((exact**2).mean().item(), rel=0.1)


def test_frozen_parameters_are_no_dimensions():
    net, batches = classifier(torch.float64, (4, 6, 3))
    net[0].requires_grad_(False)
    seen = hessian_spectrum(net, batches, cross_entropy, progress=False)
    exact = torch.linalg.eigvalsh(exact_hessian(net, batches, cross_entropy))
    assert seen.dim == 21
    np.testing.assert_allclose(seen.top_eigenvalues[0], exact[-1], rtol=1e-10)


def test_everything_is_written_in_plain_python():
    net, batches = classifier(torch.float32, (4, 6, 3))
    written = hessian_spectrum(net, batches, cross_entropy, probes=2, steps=8, progress=False).to_dict()
    assert {type(value) for value in written.values()} <= {int, float, list, dict}
    assert written["examples"] == 90 and len(written["eigenvalues"]) == len(written["weights"])
