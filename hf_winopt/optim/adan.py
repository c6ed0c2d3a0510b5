"""Adan: adaptive Nesterov momentum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from ..engine import Work
from ..rules import MOMENTS, Rule, scale_of
from .base import RuleOptimizer
from .groups import options_of
from .levels import kept
from .options import betas as betas_of_length


class Adan(RuleOptimizer):
    """Adan (Adaptive Nesterov Momentum Algorithm), plain, or accelerated by Win or Win2, or with AGR.

    Args: as `AdamW`, but `weight_decay` is 0 by default, `decay=None` is "proximal", and:
        betas: decay of the first moment, of the gradients' differences and of the second moment. In torch's convention:
            the paper's beta is one minus ours.
        restart_every: set the moments back to zero and the step count to 0 every so many steps; 0 is never. What
            counts steps starts anew with it: `agr_steps` and `weight_decay_gamma`.

    Learning rates are 5 to 10 times AdamW's.
    """

    checks = {"betas": betas_of_length(3)}  # noqa: RUF012 (a ClassVar in the base)

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        betas: tuple[float, float, float] = (0.98, 0.92, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        restart_every: int = 0,
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
        return Rule(
            transform="agr" if options["agr"] else "none",
            moments="adan",
            acceleration=options["acceleration"],
            decay=options["decay"] or "proximal",
            **kept(options),
        )

    @torch.no_grad()
    def restart(self) -> None:
        """Set the moments of every parameter back to zero; the next step is step 1. The distances stay."""
        for group in self.param_groups:
            for p in group["params"]:
                if p in self._own_state:
                    _restart(self._own_state[p])

    def _count(self, group: dict[str, Any], works: Sequence[Work]) -> None:
        for work in works if group["restart_every"] else ():
            if work.step.item() >= group["restart_every"]:
                _restart({"step": work.step, **work.state})
        super()._count(group, works)


def _restart(state: dict[str, Tensor]) -> None:
    moments = MOMENTS["adan"].state_names
    for name in ("step", *moments, *map(scale_of, moments)):
        if name in state:
            state[name].zero_()
