"""Lightning clips the gradients of our optimizers also in mixed precision.

It refuses to where an optimizer can unscale gradients itself, as torch's fused ones do, for they would be clipped while
they are still scaled. Ours can, and need not: told that they do not, Lightning unscales before it clips, as it does for
most optimizers, and `GradScaler` then hands the step no scale.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from hf_winopt.integrations.on_import import when_imported

# one package or two; those of PyTorch Lightning import the function from those of Fabric
_PACKAGES = ("lightning.fabric", "lightning.pytorch", "lightning_fabric", "pytorch_lightning")


@functools.cache  # once a process is enough
def install() -> None:
    """Let Lightning unscale for our optimizers, without importing it. May be repeated."""
    for package in _PACKAGES:
        for kind in ("amp", "fsdp"):
            when_imported(f"{package}.plugins.precision.{kind}", _unscale_for_ours)


def _unscale_for_ours(module: ModuleType) -> None:
    from hf_winopt.optim.base import RuleOptimizer

    theirs = getattr(module, "_optimizer_handles_unscaling", None)
    if theirs is None:  # a Lightning that asks in another way
        return

    @functools.wraps(theirs)
    def _optimizer_handles_unscaling(optimizer: Any) -> bool:
        return not isinstance(optimizer, RuleOptimizer) and theirs(optimizer)

    module._optimizer_handles_unscaling = _optimizer_handles_unscaling  # type: ignore[attr-defined]
