"""The norm of all gradients: clipping goes by it, and a step can be left out because of it."""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from torch import Tensor

from .. import engine
from ..engine.norms import grad_norm
from ..rules import Coefficient, largest_norm
from .gathered import Gathered
from .groups import Grouped
from .state import HOST

logger = logging.getLogger(__name__)


class HeedsNorm(Grouped):
    """What an optimizer does by the norm of all its gradients, which it finds once a step."""

    _found_inf: Tensor | None = None

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

    def _norm_of(self, gathered: Gathered, grad_scale: Tensor | None) -> Tensor | None:
        """The norm of all gradients, unscaled; None where it is not needed."""
        if not self._needs_norm():
            return None
        grads, sharings = gathered.live, gathered.live_sharings()
        if any(g.is_meta for g in grads):  # those without values say nothing
            sharings = [each for g, each in zip(grads, sharings) if not g.is_meta]
            grads = [g for g in grads if not g.is_meta]
        home = next((z.device for z in gathered.zs if not z.is_meta), HOST)
        norm = grad_norm(grads, sharings, home)
        return norm if grad_scale is None else norm / grad_scale.to(norm)

    def _largest_norm(self) -> float:
        """The largest norm of all gradients that every second moment bears, once they are clipped."""
        return min((self._bears(group) for group in self.param_groups), default=math.inf)

    def _bears(self, group: dict[str, Any]) -> float:
        rule = self.rule(group)
        sizes = {(p.dtype, p.numel()) for p in group["params"] if p.grad is not None}
        bounds = (largest_norm(rule, group, n, torch.finfo(engine.compute_dtype(t)).max) for t, n in sizes)
        bound = min(bounds, default=math.inf)
        return math.inf if 0 < group["max_grad_norm"] <= bound else bound

    def _leave_out_unless_borne(self) -> None:
        """Once the norm is known: what AMP calls an overflow is then also a norm that no second moment bears."""
        if not self._skips() or self.grad_norm is None:
            return
        left_out = ~(self.grad_norm.isfinite() & (self.grad_norm <= self._largest_norm()))
        if self._found_inf is not None:
            left_out |= self._found_inf.to(left_out.device).reshape(()) != 0
        self._found_inf = left_out
        if self._skipped is None:
            with torch.inference_mode(False):  # to be written to outside of that mode too
                self._skipped = left_out.long()
        else:  # in place: a graph that replays the step counts on
            self._skipped.add_(left_out.to(self._skipped.device))
        if left_out.device.type == "cpu" and engine.has_values(left_out) and left_out:
            logger.warning(
                f"{type(self).__name__} left out a step: the norm of all gradients is {self.grad_norm.item()}; "
                f"{self.skipped_steps} left out so far"
            )

    def _grad_factor(self, group: dict[str, Any], grad_scale: Tensor | None) -> Coefficient:
        """What section 0 multiplies the gradient by: sign, unscaling and clipping together."""
        factor: Coefficient = -1.0 if group["maximize"] else 1.0
        if grad_scale is not None:
            factor = factor / _number(grad_scale.reshape(()))
        if group["max_grad_norm"] > 0 and self.grad_norm is not None:
            share = group["max_grad_norm"] / (_number(self.grad_norm) + 1e-6)
            if isinstance(share, Tensor):
                return factor * share.clamp(max=1.0)
            factor = factor * (1.0 if share >= 1 else share)  # a norm that is not a number stays one
        return factor


def _number(value: Tensor) -> Coefficient:
    """What the host knows of a number: not that of a fake tensor."""
    return value.item() if engine.has_values(value) else value
