"""Accelerate hears of a step that AMP left out.

`AcceleratedOptimizer` takes a step to be skipped where `GradScaler` did not call it. A step that heeds an overflow
itself, on the device, is always called: without this, `accelerator.optimizer_step_was_skipped` would be False and the
learning-rate schedule would run on (Accelerate's issue 4242, where torch's fused AdamW is the example).
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from hf_winopt.integrations.on_import import when_imported


@functools.cache  # once a process is enough
def install() -> None:
    """Let Accelerate ask the optimizer itself, without importing it. May be repeated."""
    when_imported("accelerate.optimizer", _ask_the_optimizer)


def _ask_the_optimizer(module: ModuleType) -> None:
    theirs = getattr(getattr(module.AcceleratedOptimizer, "step_was_skipped", None), "fget", None)
    if theirs is None:  # an Accelerate that asks in another way
        return

    def step_was_skipped(self: Any) -> bool:
        """Whether the last step was left out because of its gradients."""
        own = getattr(self.optimizer, "step_was_skipped", None)
        return bool(theirs(self) or own)  # a scaler that did not call the step leaves `own` of the step before

    module.AcceleratedOptimizer.step_was_skipped = property(step_was_skipped)
