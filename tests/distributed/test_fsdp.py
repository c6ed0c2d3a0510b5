"""FSDP2, tensor parallel, both, FSDP1, ZeRO: a sharded model learns what the whole one learns, or that is refused."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

from hf_winopt import AdamW, create_optimizer
from tests.distributed.processes import together

NAMES = ("adamw_win", "adan", "adamw_agr", "adal_win", "lamb_win2", "sgd_win")
ROWS = 8


class Net(nn.Module):
    """Widths that cannot be shared evenly; in float64, so that what is added in another order is the same."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.norm = nn.Linear(6, 10), nn.Linear(10, 5), nn.LayerNorm(5)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.second(torch.relu(self.first(x))))


def batches(count: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(1)
    return [torch.randn(ROWS, 6, generator=draw, dtype=torch.float64) for _ in range(count)]


def train(model: nn.Module, optimizer: torch.optim.Optimizer, part: int = 0, parts: int = 1, steps: int = 4) -> None:
    """On one of the parts of each batch; the mean over the parts is that over the batch."""
    for x in batches(steps):
        model(x.chunk(parts)[part]).square().sum(1).mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def learned_alone(name: str, **options: float) -> Net:
    net = Net()
    train(net, create_optimizer(name, net.parameters(), **options))
    return net


def check(model: nn.Module, whole: Net) -> None:
    for (name, p), q in zip(model.named_parameters(), whole.parameters()):
        mine = p.detach().full_tensor() if hasattr(p, "full_tensor") else p.detach()
        torch.testing.assert_close(
            mine, q.detach(), rtol=1e-9, atol=1e-9, msg=lambda said, name=name: f"{name}: {said}"
        )


OPTIONS = {"lr": 1e-2, "weight_decay": 0.1, "max_grad_norm": 0.3}


def sharded() -> None:
    rank, processes = dist.get_rank(), dist.get_world_size()
    line = init_device_mesh("cpu", (processes,), mesh_dim_names=("data",))
    for name in NAMES:
        whole = learned_alone(name, **OPTIONS)
        net = Net()
        for layer in (net.first, net.second, net):
            fully_shard(layer, mesh=line)
        train(net, create_optimizer(name, net.parameters(), **OPTIONS), rank, processes)
        check(net, whole)

        net = DistributedDataParallel(Net())
        train(net, create_optimizer(name, net.parameters(), **OPTIONS), rank, processes)
        check(net.module, whole)

        net = Net()
        mesh = init_device_mesh("cpu", (1, 2) if processes == 2 else (2, 2), mesh_dim_names=("data", "tensor"))
        parallelize_module(net, mesh["tensor"], {"first": ColwiseParallel(), "second": RowwiseParallel()})
        if processes == 4:
            for layer in (net.first, net.second, net):
                fully_shard(layer, mesh=mesh["data"])
        train(net, create_optimizer(name, net.parameters(), **OPTIONS), mesh.get_coordinate()[0], mesh.size(0))
        check(net, whole)


@pytest.mark.parametrize("processes", [2, 4])
def test_a_sharded_model_learns_what_the_whole_one_learns(processes: int, tmp_path: Path) -> None:
    together(processes, sharded, tmp_path)


def flat() -> None:
    rank = dist.get_rank()
    options = {"lr": 1e-2, "weight_decay": 0.1}
    for own in (False, True):
        net = FullyShardedDataParallel(Net(), use_orig_params=own, device_id=torch.device("cpu"))
        train(net, create_optimizer("adamw_win", net.parameters(), **options), rank, 2)
        with FullyShardedDataParallel.summon_full_params(net):
            check(net.module, learned_alone("adamw_win", **options))
        before = [p.detach().clone() for p in net.parameters()]
        for name, more, what in (
            ("adamw_agr", {}, "an optimizer without AGR"),
            ("adal", {}, "adamw_win"),
            ("lamb", {}, "norms of whole parameters"),
            ("adamw_win", {"max_grad_norm": 1.0}, "the clipping of Trainer, Accelerate or DeepSpeed"),
        ):
            with pytest.raises(RuntimeError, match=f"flat pieces.*FSDP1.*{what}|{what}.*flat pieces"):
                train(net, create_optimizer(name, net.parameters(), **options, **more), rank, 2, steps=1)
            net.zero_grad()
        assert all(map(torch.equal, net.parameters(), before))


def test_flat_pieces_are_stepped_element_by_element_or_refused(tmp_path: Path) -> None:
    together(2, flat, tmp_path)


def test_parameters_that_were_replaced_by_a_flat_one_are_refused() -> None:
    """As DeepSpeed's ZeRO does, behind the back of the optimizer that it was given."""
    for name, refused in (("adamw_win", False), ("lamb", True), ("adal", True), ("adamw_agr", True)):
        net = Net()
        optimizer = create_optimizer(name, net.parameters(), lr=1e-2, weight_decay=0.1)
        flat = nn.Parameter(torch.cat([p.detach().flatten() for p in net.parameters()])[:70].clone())
        flat.grad = torch.ones_like(flat)
        optimizer.param_groups[0]["params"] = [flat]
        before = flat.detach().clone()
        if refused:
            with pytest.raises(RuntimeError, match="flat pieces"):
                optimizer.step()
            assert torch.equal(flat, before) and not optimizer.state
        else:
            optimizer.step()
            assert not torch.equal(flat, before)
        assert isinstance(copy.deepcopy(optimizer), type(optimizer))


def test_flat_ones_that_are_shown_group_by_group_are_refused_before_the_first() -> None:
    """As ZeRO-1 and ZeRO-2 step: LAMB of what is not decayed is Adam, and needs no whole."""
    net = Net()
    groups = [{"params": [net.first.bias], "weight_decay": 0.0}, {"params": [net.first.weight]}]
    made = create_optimizer("lamb", groups, lr=1e-2, weight_decay=0.1)
    for optimizer in (made, copy.deepcopy(made)):
        for group in optimizer.param_groups:
            group["params"] = [nn.Parameter(torch.ones(10, dtype=torch.float64))]
            group["params"][0].grad = torch.ones(10, dtype=torch.float64)
        optimizer.param_groups, flat = optimizer.param_groups[:1], optimizer.param_groups[0]["params"][0]
        with pytest.raises(RuntimeError, match=r"LAMB takes norms of whole parameters.*flat pieces"):
            optimizer.step()
        assert torch.equal(flat, torch.ones_like(flat)) and not optimizer.state


def redundant() -> None:
    rank = dist.get_rank()
    options = {"lr": 1e-2, "weight_decay": 0.1}
    for kind, more in ((AdamW, {"acceleration": "win", "agr": True}), (AdamW, {"acceleration": "win"})):
        net, whole = DistributedDataParallel(Net()), Net()
        train(net, ZeroRedundancyOptimizer(net.parameters(), kind, **options, **more), rank, 2)
        train(whole, kind(whole.parameters(), **options, **more))
        check(net.module, whole)
    optimizer = ZeroRedundancyOptimizer(net.parameters(), AdamW, **options, max_grad_norm=1.0)
    with pytest.raises(RuntimeError, match=r"max_grad_norm.*ZeroRedundancyOptimizer gives it only some"):
        train(net, optimizer, rank, 2)


def test_zero_redundancy_is_exact_or_refused(tmp_path: Path) -> None:
    together(2, redundant, tmp_path)
