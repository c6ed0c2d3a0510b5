"""Small nets whose Hessian can be written down, exact and in float64."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

Batch = tuple[Tensor, Tensor]


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def squares(model: nn.Module, batch: Batch) -> Tensor:
    """Half the mean square, so that the Hessian of a linear model is `X^T X / n`."""
    return 0.5 * (model(batch[0]) - batch[1]).square().sum(1).mean()


def classifier(dtype: torch.dtype, widths: tuple[int, ...] = (12, 24, 24, 5)) -> tuple[nn.Module, list[Batch]]:
    """A net that has learned a little, and its data in batches of unequal size."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.Tanh()]
    net = nn.Sequential(*layers[:-1]).to(dtype)
    inputs, labels = torch.randn(90, widths[0], dtype=dtype), torch.randint(0, widths[-1], (90,))
    adam = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(100):
        adam.zero_grad()
        cross_entropy(net, (inputs, labels)).backward()
        adam.step()
    return net, list(zip(inputs.split(32), labels.split(32)))


def exact_hessian(model: nn.Module, batches: list[Batch], loss: Any) -> Tensor:
    """Of the mean over all examples, in float64, by torch's own functional derivatives."""
    model = model.double()
    inputs, targets = (torch.cat(parts) for parts in zip(*batches))
    inputs, targets = inputs.double(), targets.double() if targets.is_floating_point() else targets
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    start = {name: dict(model.named_parameters())[name].detach() for name in names}

    def at(flat: Tensor) -> Tensor:
        parts = flat.split([start[name].numel() for name in names])
        here = {name: part.view_as(start[name]) for name, part in zip(names, parts)}
        return loss(lambda x: functional_call(model, here, (x,)), (inputs, targets))

    return torch.autograd.functional.hessian(at, torch.cat([start[name].flatten() for name in names]))


def wasserstein(values: Tensor, weights: Tensor, exact: Tensor) -> float:
    """The distance of two distributions on the line: the area between their cumulative functions."""
    points = torch.cat([values, exact]).sort().values
    one = torch.cat([torch.zeros(1), weights.cumsum(0)])[torch.searchsorted(values, points, right=True)]
    other = torch.searchsorted(exact, points, right=True) / len(exact)
    return ((one - other).abs()[:-1] * points.diff()).sum().item()
