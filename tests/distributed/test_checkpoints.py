"""torch.distributed.checkpoint: what several processes saved one goes on from, and the other way round."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    get_state_dict,
    set_optimizer_state_dict,
    set_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from hf_winopt import create_optimizer
from tests.distributed.processes import together
from tests.distributed.test_fsdp import Net, check, train

NAMES = ("adamw_win2", "adan_agr", "lamb_win")
OPTIONS = {"lr": 1e-2, "weight_decay": 0.1}


def made(name: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Sharded among the processes, if there are several."""
    net = Net()
    if dist.get_world_size() > 1:
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        for layer in (net.first, net.second, net):
            fully_shard(layer, mesh=mesh)
    return net, create_optimizer(name, net.parameters(), **OPTIONS)


def go(net: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    train(net, optimizer, dist.get_rank(), dist.get_world_size(), steps)


def save(folder: str) -> None:
    for name in NAMES:
        net, optimizer = made(name)
        go(net, optimizer, 3)
        model_state, optimizer_state = get_state_dict(net, optimizer)
        dcp.save({"model": model_state, "optimizer": optimizer_state}, checkpoint_id=f"{folder}/{name}")


def load(folder: str) -> None:
    for name in NAMES:
        net, optimizer = made(name)
        model_state, optimizer_state = get_state_dict(net, optimizer)
        state = {"model": model_state, "optimizer": optimizer_state}
        dcp.load(state, checkpoint_id=f"{folder}/{name}")
        set_state_dict(net, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
        go(net, optimizer, 2)
        whole = Net()
        alone = create_optimizer(name, whole.parameters(), **OPTIONS)
        train(whole, alone, steps=3)
        train(whole, alone, steps=2)
        check(net, whole)


@pytest.mark.parametrize(("saving", "loading"), [(2, 1), (1, 2)])
def test_goes_on_with_another_number_of_processes(saving: int, loading: int, tmp_path: Path) -> None:
    together(saving, save, tmp_path / "saving", str(tmp_path))
    together(loading, load, tmp_path / "loading", str(tmp_path))


def whole_state() -> None:
    """The state dict of the whole, as one process would have it: the same after a round trip, and as alone."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    for name in NAMES:
        net, optimizer = made(name)
        go(net, optimizer, 3)
        state = get_optimizer_state_dict(net, optimizer, options=options)
        alone = Net()
        mine = create_optimizer(name, alone.parameters(), **OPTIONS)
        train(alone, mine, steps=3)
        if dist.get_rank() == 0:  # which has all of it
            for key, p in alone.named_parameters():
                for part, value in mine.state[p].items():
                    torch.testing.assert_close(state["state"][key][part].to(value), value, rtol=1e-9, atol=1e-9)
        again, fresh = made(name)
        again.load_state_dict(net.state_dict())
        broadcast = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
        set_optimizer_state_dict(again, fresh, state, options=broadcast)
        go(net, optimizer, 2)
        go(again, fresh, 2)
        for p, q in zip(net.parameters(), again.parameters()):
            assert torch.equal(p.to_local(), q.to_local())

    # what is whole does not fit a shard, and the optimizer stays as it was
    first = optimizer.state[next(net.parameters())]
    before = {key: value.to_local().clone() for key, value in first.items() if key != "step"}
    with pytest.raises(ValueError, match=r"must be sharded as the parameter is.*set_optimizer_state_dict"):
        optimizer.load_state_dict(mine.state_dict())
    for key, value in before.items():
        assert torch.equal(first[key].to_local(), value)
    with pytest.raises(ValueError, match="must be sharded as the parameter is"):
        mine.load_state_dict(optimizer.state_dict())


def test_the_whole_state_goes_round(tmp_path: Path) -> None:
    together(2, whole_state, tmp_path)
