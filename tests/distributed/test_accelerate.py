"""FSDP2 as Accelerate sets it up: it puts shards in the place of the parameters that the optimizer was given."""

from __future__ import annotations

import os
from pathlib import Path

import torch.distributed as dist
from torch.distributed.tensor import DTensor

from hf_winopt import create_optimizer
from tests.distributed.processes import together
from tests.distributed.test_fsdp import OPTIONS, Net, batches, check, learned_alone


def prepared_by_accelerate() -> None:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    here, processes = dist.get_rank(), dist.get_world_size()
    os.environ.update(RANK=str(here), WORLD_SIZE=str(processes), MASTER_ADDR="localhost", MASTER_PORT="0")
    for name in ("adamw_win", "lamb_win", "adamw_agr"):
        AcceleratorState._reset_state(True)
        accelerator = Accelerator(cpu=True)
        # by its launcher it takes FSDP for a matter of GPUs
        accelerator.state.distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2, auto_wrap_policy="NO_WRAP", reshard_after_forward=True, cpu_ram_efficient_loading=False
        )
        options = {key: value for key, value in OPTIONS.items() if key != "max_grad_norm"}
        net = Net()
        net, optimizer = accelerator.prepare(net, create_optimizer(name, net.parameters(), **options))
        assert all(isinstance(p, DTensor) for p in optimizer.param_groups[0]["params"])
        for x in batches(4):
            accelerator.backward(net(x.chunk(processes)[here]).square().sum(1).mean())
            optimizer.step()
            optimizer.zero_grad()
        check(net, learned_alone(name, **options))


def test_prepared_by_accelerate(tmp_path: Path) -> None:
    together(2, prepared_by_accelerate, tmp_path)
