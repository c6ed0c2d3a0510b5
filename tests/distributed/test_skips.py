"""A gradient that is not finite in one shard leaves the step out on every process."""

import math

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.tensor.debug import CommDebugMode
from torch.nn.parallel import DistributedDataParallel

from hf_winopt import AdamW
from tests.distributed.problems import Pair
from tests.distributed.processes import together


def one_shard_is_bad() -> None:
    mesh = init_device_mesh("cpu", (2,))
    for name, clip in (("adamw_win", 0.0), ("adamw_win", 0.5), ("lamb", 0.0)):
        pair = Pair(name, mesh, skip_nonfinite=True, max_grad_norm=clip)
        pair.steps(2)
        pair.grads()
        if dist.get_rank() == 1:
            pair.parts[2].grad.to_local()[0, 0] = math.nan
        with CommDebugMode() as counted:
            pair.of_parts.step()
        assert counted.get_total_counts() == 1  # clipping and this have one norm
        assert pair.of_parts.skipped_steps == 1
        pair.check(1e-5)  # as the whole one, which has not stepped
        pair.steps(2)
        pair.check(1e-5)


def test_one_bad_shard_is_enough(tmp_path):
    together(2, one_shard_is_bad, tmp_path)


def redundant() -> None:
    net = DistributedDataParallel(torch.nn.Linear(3, 2))
    optimizer = ZeroRedundancyOptimizer(net.parameters(), AdamW, lr=1e-2, skip_nonfinite=True)
    net(torch.ones(1, 3)).sum().backward()
    with pytest.raises(RuntimeError, match=r"skip_nonfinite.*ZeroRedundancyOptimizer gives it only some"):
        optimizer.step()


def test_who_has_some_only_cannot_tell(tmp_path):
    together(2, redundant, tmp_path)
