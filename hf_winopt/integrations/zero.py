"""`ZeroRedundancyOptimizer` gives each process some of the parameters: none has the norm of all gradients then."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from hf_winopt.integrations.on_import import when_imported

WHY = "ZeroRedundancyOptimizer gives it only some of the parameters"


@functools.cache  # once a process is enough
def install() -> None:
    """Let our optimizers know when they have only a part, without importing torch's. May be repeated."""
    when_imported("torch.distributed.optim.zero_redundancy_optimizer", _tell)


def _tell(module: ModuleType) -> None:
    from hf_winopt.optim.base import RuleOptimizer  # imports torch

    theirs = module.ZeroRedundancyOptimizer._init_local_optimizer

    @functools.wraps(theirs)
    def _init_local_optimizer(self: Any) -> None:
        theirs(self)
        if isinstance(self.optim, RuleOptimizer) and self.world_size > 1:
            self.optim.has_some_only = WHY

    module.ZeroRedundancyOptimizer._init_local_optimizer = _init_local_optimizer
