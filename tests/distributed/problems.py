"""Parameters, whole and sharded, that are stepped by the same gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Placement, Replicate, Shard, distribute_tensor

from hf_winopt import create_optimizer

SHAPES = [(7, 5), (3,), (16, 8), (1,), (2, 6), (0, 4), (5, 3, 2), (2, 1)]
"""Some are cut into uneven shards, some leave a process without any; of the last each has a single element."""

ON_A_LINE: list[list[Placement]] = [
    [Shard(0)],
    [Shard(0)],
    [Shard(1)],
    [Shard(0)],
    [Replicate()],
    [Shard(0)],
    [Shard(2)],
    [Shard(0)],
]
ON_A_PLANE: list[list[Placement]] = [
    [Shard(0), Shard(0)],
    [Shard(0), Replicate()],
    [Shard(0), Shard(1)],
    [Replicate(), Replicate()],
    [Replicate(), Shard(1)],
    [Shard(0), Shard(0)],
    [Shard(1), Shard(2)],
    [Shard(0), Replicate()],
]
PLACEMENTS = {1: ON_A_LINE, 2: ON_A_PLANE}


class Pair:
    """An optimizer of whole parameters, and one of the same on a mesh.

    Args:
        name: of the optimizer.
        mesh: of one or two dimensions.
        dtype: of the parameters.
        options: of the optimizer.
    """

    def __init__(self, name: str, mesh: DeviceMesh, dtype: torch.dtype = torch.float32, **options: Any) -> None:
        self.mesh, self.dtype, self.draw = mesh, dtype, torch.Generator().manual_seed(0)
        self.placements = PLACEMENTS[mesh.ndim]
        start = [self._normal(shape) for shape in SHAPES]
        self.whole = [nn.Parameter(tensor.clone()) for tensor in start]
        self.parts = [nn.Parameter(self.shard(tensor, i)) for i, tensor in enumerate(start)]
        options = {"lr": 1e-2, "weight_decay": 0.1, "backend": "eager", **options}
        self.of_whole, self.of_parts = (create_optimizer(name, mine, **options) for mine in (self.whole, self.parts))

    def _normal(self, shape: Sequence[int]) -> Tensor:
        return torch.randn(shape, generator=self.draw).to(self.dtype)

    def shard(self, tensor: Tensor, place: int) -> Tensor:
        return distribute_tensor(tensor, self.mesh, self.placements[place])

    def grads(self) -> None:
        """New gradients for both."""
        for i, (whole, part) in enumerate(zip(self.whole, self.parts)):
            whole.grad = self._normal(whole.shape)
            part.grad = self.shard(whole.grad, i)

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.grads()
            self.of_whole.step()
            self.of_parts.step()

    def differences(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Parameters and state, whole beside whole."""
        for whole, part in zip(self.whole, self.parts):
            yield whole.detach(), part.detach().full_tensor()
            for name, value in self.of_whole.state[whole].items():
                other = self.of_parts.state[part][name]
                yield value, other.full_tensor() if hasattr(other, "full_tensor") else other

    def check(self, tolerance: float) -> None:
        for one, other in self.differences():
            torch.testing.assert_close(other, one, rtol=tolerance, atol=tolerance)
