"""The norm of all gradients: clipping goes by it, and a step can be left out because of it."""

from __future__ import annotations

import logging
from typing import Any

from torch import Tensor

logger = logging.getLogger(__name__)


class HeedsNorm:
    """What an optimizer with `param_groups` does by the norm of all its gradients, which it finds once a step."""

    param_groups: list[dict[str, Any]]
    _found_inf: Tensor | None

    grad_norm: Tensor | None = None
    """Norm of all gradients at the last step, unscaled and before clipping; None where no option asks for it.

    A 0-dim float64 tensor beside the parameters: nothing waits for it until it is read.
    """

    _skipped: Tensor | None = None

    @property
    def skipped_steps(self) -> int:
        """How many steps `skip_nonfinite` has left out since the optimizer was made. On a GPU asking waits for them."""
        return 0 if self._skipped is None else int(self._skipped.item())

    def _clips(self) -> bool:
        return any(group["max_grad_norm"] > 0 for group in self.param_groups)

    def _skips(self) -> bool:
        return any(group.get("skip_nonfinite") for group in self.param_groups)

    def _needs_norm(self) -> bool:
        return self._clips() or self._skips()

    def _leave_out_unless_finite(self) -> None:
        """Once the norm is known: what AMP calls an overflow is then also a norm that is not finite."""
        if not self._skips() or self.grad_norm is None:
            return
        left_out = ~self.grad_norm.isfinite()
        if self._found_inf is not None:
            left_out |= self._found_inf.to(left_out.device).reshape(()) != 0
        self._found_inf = left_out
        if self._skipped is None:
            self._skipped = left_out.long()
        else:  # in place: a graph that replays the step counts on
            self._skipped.add_(left_out.to(self._skipped.device))
        if left_out.device.type == "cpu" and left_out:
            logger.warning(
                f"{type(self).__name__} left out a step: the norm of all gradients is {self.grad_norm.item()}; "
                f"{self.skipped_steps} left out so far"
            )
