"""NAdamW: Nesterov's look ahead on Adam's moments, which costs no state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.optim.optimizer import ParamsT

from ..rules import Rule
from .base import RuleOptimizer
from .groups import options_of
from .levels import kept


class NAdamW(RuleOptimizer):
    """NAdam with decoupled weight decay, plain, or accelerated by Win or Win2, or on gradients regularized by AGR.

    Without acceleration it is `torch.optim.NAdam(decoupled_weight_decay=True)`: the direction takes the momentum of the
    next step, and of the present gradient the rest. Like Win it looks ahead, but keeps nothing for it: AdamW's 8 bytes
    a parameter. torch keeps the product of the momenta `mu_1 ... mu_t` as state; here it follows from the step count.

    Args: as `AdamW`, and:
        momentum_decay: how fast the momentum grows to beta1: `mu_t = beta1 (1 - 0.5 * 0.96^(t momentum_decay))`; >= 0.

    Example:
        >>> optimizer = NAdamW(model.parameters(), lr=3e-4)

    Source: Dozat, Incorporating Nesterov Momentum into Adam (2016); docs/math.md, section 2.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        momentum_decay: float = 4e-3,
        *,
        acceleration: str = "none",
        reckless_steps: tuple[float, float] = (2, 8),
        decay: str | None = None,
        agr: bool = False,
        agr_steps: int | None = None,
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
        accelerated = options["acceleration"] != "none"
        return Rule(
            transform="agr" if options["agr"] else "none",
            moments="nadam",
            acceleration=options["acceleration"],
            decay=options["decay"] or ("proximal" if accelerated else "decoupled"),
            **kept(options),
        )
