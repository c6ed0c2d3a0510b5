"""AMP inside the step: the gradients are unscaled and an overflow is heeded where they are read.

`torch.amp.GradScaler` leaves two numbers on an optimizer that says it can do so: `grad_scale`, what the loss was
multiplied by (absent once the scaler's `unscale_` was called), and `found_inf`, not 0 where a gradient overflowed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import engine


class StepsUnderAMP(torch.optim.Optimizer):
    """What `GradScaler` and Accelerate ask of an optimizer with a `backend`."""

    backend: str
    _found_inf: Tensor | None = None

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Asked by `GradScaler`, which waits for `found_inf` itself where the engine would have to (eager on a GPU)."""
        return all(
            p.device.type == "cpu" or engine.resolve(self.backend, p.device) == "triton"
            for group in self.param_groups
            for p in group["params"]
        )

    @property
    def step_was_skipped(self) -> bool | None:
        """Whether the last step was left out because of its gradients; None without `GradScaler` and `skip_nonfinite`.

        On a GPU asking waits for the step.
        """
        if self._found_inf is None:
            return None
        return engine.has_values(self._found_inf) and bool(self._found_inf.item())

    def _scaling(self) -> tuple[Tensor | None, Tensor | None]:
        """`(grad_scale, found_inf)` of this step, each of one element or None."""
        grad_scale, found_inf = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        if found_inf is not None and not isinstance(found_inf, Tensor):  # 0 where the scaler saw no gradient
            found_inf = torch.tensor(float(found_inf), device="cpu")
        return grad_scale, found_inf
