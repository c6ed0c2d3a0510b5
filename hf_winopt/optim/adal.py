"""AdaL: Adam on gradients scaled by their own 1-norm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.optim.optimizer import ParamsT

from ..rules import Rule
from .base import RuleOptimizer
from .groups import options_of
from .levels import kept


class AdaL(RuleOptimizer):
    """AdaL (Adaptive Gradient Transformation): Adam on `h = ||g||_1 g`, plain, or accelerated by Win or Win2.

    The norm is over each whole parameter, so that steps shrink where all of its gradient does.

    Args: as `Adam` (there is no AGR: a gradient has one transform), and:
        inverse_sqrt_lr: multiply the learning rate by `1 / sqrt(t)`, as the paper's theory does.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        inverse_sqrt_lr: bool = False,
        acceleration: str = "none",
        reckless_steps: tuple[float, float] = (2, 8),
        decay: str | None = None,
        weight_decay_gamma: float = 1.0,
        max_grad_norm: float = 0.0,
        skip_nonfinite: bool = False,
        maximize: bool = False,
        state: str = "float32",
        keep_rounding: bool = True,
        backend: str = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        super().__init__(params, options_of(locals()), backend)

    @classmethod
    def rule(cls, options: Mapping[str, Any]) -> Rule:
        return Rule(
            transform="adal",
            moments="adam",
            acceleration=options["acceleration"],
            decay=options["decay"] or "l2",
            **kept(options),
        )
