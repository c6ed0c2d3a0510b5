"""Two small parameters, an optimizer of them, and steps with gradients that a seed gives."""

from __future__ import annotations

import torch

from hf_winopt import create_optimizer


def make(device, name="adamw_win", backend="triton", **options):
    torch.manual_seed(1)
    params = [torch.nn.Parameter(torch.randn(shape).to(device)) for shape in ((6, 5), (7,))]
    return params, create_optimizer(name, params, backend=backend, **{"lr": 1e-2, **options})


def train(params, optimizer, first, last, missing=()):
    for t in range(first, last):
        for i, p in enumerate(params):
            generator = torch.Generator().manual_seed(10 * t + i)
            p.grad = None if (t, i) in missing else torch.randn(p.shape, generator=generator).to(p)
        optimizer.step()


def assert_same(params, others):
    for a, b in zip(params, others):
        torch.testing.assert_close(a.cpu(), b.cpu(), rtol=1e-6, atol=1e-6)
