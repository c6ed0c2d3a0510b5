"""A small model under DeepSpeed's engine on a CPU, and the same model learned by one process without it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from hf_winopt import OPTIMIZERS, create_optimizer
from hf_winopt.optim.base import RuleOptimizer
from tests.distributed.processes import together

OPTIONS = {"lr": 1e-2, "weight_decay": 0.1}
ELEMENTWISE = tuple(name for name, row in OPTIMIZERS.items() if not row.rule.takes_sums)
ROWS = 8

os.environ["DS_ACCELERATOR"] = "cpu"  # read when DeepSpeed is imported


class Net(nn.Module):
    """Widths that cannot be shared evenly."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.norm = nn.Linear(6, 10), nn.Linear(10, 5), nn.LayerNorm(5)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.second(torch.relu(self.first(x))))


def loss_of(outputs: Tensor, target: float = 1.0) -> Tensor:
    return (outputs - target).square().sum(1).mean()


def batches(steps: int, start: int = 0, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    draw = torch.Generator().manual_seed(1)
    return [torch.randn(ROWS, 6, generator=draw).to(dtype) for _ in range(start + steps)][start:]


def optimizer_of(net: nn.Module, name: str, **options: float) -> RuleOptimizer:
    """With two groups, as Trainer makes them; the one that is not decayed comes first."""
    decayed = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim == 1]
    groups = [{"params": others, "weight_decay": 0.0}, {"params": decayed}]
    return create_optimizer(name, groups, **{**OPTIONS, **options})


def config(stage: int, **more: Any) -> dict[str, Any]:
    """Of DeepSpeed; at stage 3 all parameters are in pieces, and stepped in several groups."""
    zero = {"stage": stage, "stage3_param_persistence_threshold": 0, "sub_group_size": 60}
    return {
        "train_micro_batch_size_per_gpu": ROWS // dist.get_world_size(),
        "zero_optimization": zero if stage == 3 else {"stage": stage},
        "zero_allow_untested_optimizer": True,
        "gradient_clipping": 0.0,  # it would clip to 1
        **more,
    }


def engine(net: nn.Module, optimizer: torch.optim.Optimizer, config: Mapping[str, Any]) -> Any:
    import deepspeed

    return deepspeed.initialize(model=net, optimizer=optimizer, config=dict(config))[0]


def train(engine: Any, steps: int, start: int = 0, dtype: torch.dtype = torch.float32) -> None:
    for x in batches(steps, start, dtype):
        engine.backward(loss_of(engine(x.chunk(dist.get_world_size())[dist.get_rank()])))
        engine.step()


def whole(engine: Any) -> list[Tensor]:
    """Copies of the parameters, gathered where they are in pieces."""
    import deepspeed

    found = []
    for p in engine.module.parameters():
        with deepspeed.zero.GatheredParameters([p], enabled=hasattr(p, "ds_id")):
            found.append(p.detach().clone())
    return found


def learned_alone(name: str, steps: int, clip: float = 0.0, **options: float) -> list[Tensor]:
    """What one process learns without DeepSpeed."""
    net = Net()
    optimizer = optimizer_of(net, name, **options)
    for x in batches(steps):
        loss_of(net(x)).backward()
        if clip:
            nn.utils.clip_grad_norm_(net.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()
    return [p.detach() for p in net.parameters()]


def check(found: list[Tensor], right: list[Tensor], tolerance: float, what: str) -> None:
    for mine, theirs in zip(found, right, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance, msg=lambda said: f"{what}: {said}")


def together_under_deepspeed(processes: int, function: Callable[..., None], folder: Path, *arguments: object) -> None:
    """As `together`, with what DeepSpeed's launcher tells the processes."""
    together(processes, _one, folder, function, *arguments)


def _one(function: Callable[..., None], *arguments: object) -> None:
    import deepspeed

    # a collective over shared memory that would first be compiled; what it replaces, gloo, does as well
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    rank, size = str(dist.get_rank()), str(dist.get_world_size())
    os.environ.update(RANK=rank, WORLD_SIZE=size, MASTER_ADDR="localhost", MASTER_PORT="0")
    function(*arguments)
