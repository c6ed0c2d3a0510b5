"""Win around others' optimizers, and Muon, on several processes: what one learns, DCP, and flat pieces refused."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel

from hf_winopt import Win, create_optimizer
from tests.distributed.processes import together
from tests.distributed.test_fsdp import Net, train

STEPS = 4
TOLERANCE = 1e-9


def around_adamw(net: nn.Module) -> Any:
    return Win(torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.1))


def muon(net: nn.Module) -> Any:
    return create_optimizer("muon", net.parameters(), lr=1e-2, weight_decay=0.1, model=net)


def muon_win(net: nn.Module) -> Any:
    return create_optimizer("muon_win", net.parameters(), lr=1e-2, weight_decay=0.1, model=net)


EVERY = (around_adamw, muon, muon_win)


@contextlib.contextmanager
def exact() -> Iterator[None]:
    """Muon orthogonalizes in bfloat16, whose sums over shards are rounded otherwise: here in float64."""
    with mock.patch.object(torch.Tensor, "bfloat16", lambda self: self):
        yield


def learned_alone(make: Any) -> Net:
    net = Net()
    train(net, make(net), steps=STEPS)
    return net


def check(model: nn.Module, whole: nn.Module) -> None:
    start = Net()
    for (name, p), q, before in zip(model.named_parameters(), whole.parameters(), start.parameters()):
        mine = p.detach().full_tensor() if hasattr(p, "full_tensor") else p.detach()
        torch.testing.assert_close(mine, q.detach(), rtol=0, atol=TOLERANCE, msg=lambda said, at=name: f"{at}: {said}")
        assert (mine - before).abs().max() > 1e-3, name


def shard(net: Net) -> Net:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in (net.first, net.second, net):
        fully_shard(layer, mesh=mesh)
    return net


@exact()
def learn() -> None:
    rank, processes = dist.get_rank(), dist.get_world_size()
    for make in EVERY:
        whole = learned_alone(make)
        copied = DistributedDataParallel(Net())
        train(copied, make(copied.module), rank, processes, STEPS)
        check(copied.module, whole)
        net = shard(Net())
        train(net, make(net), rank, processes, STEPS)
        check(net, whole)


def test_several_processes_learn_what_one_learns(tmp_path: Path) -> None:
    together(2, learn, tmp_path)


@exact()
def save(folder: str) -> None:
    for make in EVERY:
        net = shard(Net())
        optimizer = make(net)
        train(net, optimizer, dist.get_rank(), dist.get_world_size(), 2)
        model_state, optimizer_state = get_state_dict(net, optimizer)
        dcp.save({"model": model_state, "optimizer": optimizer_state}, checkpoint_id=f"{folder}/{make.__name__}")


@exact()
def load(folder: str) -> None:
    for make in EVERY:
        net = shard(Net()) if dist.get_world_size() > 1 else Net()
        optimizer = make(net)
        model_state, optimizer_state = get_state_dict(net, optimizer)
        state = {"model": model_state, "optimizer": optimizer_state}
        dcp.load(state, checkpoint_id=f"{folder}/{make.__name__}")
        set_state_dict(net, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
        train(net, optimizer, dist.get_rank(), dist.get_world_size(), 2)
        whole = Net()
        alone = make(whole)
        for _ in range(2):
            train(whole, alone, steps=2)
        check(net, whole)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_checkpoint_of_two_processes_goes_on(processes: int, tmp_path: Path) -> None:
    together(2, save, tmp_path / "save", str(tmp_path))
    together(processes, load, tmp_path / "load", str(tmp_path))


def flat() -> None:
    rank = dist.get_rank()
    net = FullyShardedDataParallel(Net(), use_orig_params=True, device_id=torch.device("cpu"))
    train(net, around_adamw(net), rank, 2, STEPS)
    with FullyShardedDataParallel.summon_full_params(net):
        check(net.module, learned_alone(around_adamw))
    for own in (False, True):
        net = FullyShardedDataParallel(Net(), use_orig_params=own, device_id=torch.device("cpu"))
        with pytest.raises(ValueError, match="flat pieces, as DeepSpeed and FSDP1 make"):
            muon(net)


def test_flat_pieces_of_fsdp1(tmp_path: Path) -> None:
    together(2, flat, tmp_path)
