"""SGD with momentum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.optim.optimizer import ParamsT

from ..rules import Rule
from .base import RuleOptimizer
from .groups import options_of
from .levels import kept


class SGD(RuleOptimizer):
    """SGD with momentum (`torch.optim.SGD`), plain, or accelerated by Win or Win2, or with AGR.

    Args: as `AdamW` where they are the same, but `weight_decay` is 0 by default and `decay=None` is "l2" (proximal
    under Win and Win2), and:
        momentum: `mu` in `m <- mu m + (1 - dampening) h`, in [0, 1); 0.9 by default, unlike torch's 0.
        dampening: in [0, 1).
        nesterov: the direction is `g + mu m` instead of `m`; needs momentum and no dampening. False is the Win paper's
            Eq. (8); its released code trains with True.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        momentum: float = 0.9,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
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
        if options["nesterov"] and (options["momentum"] == 0 or options["dampening"] != 0):
            raise ValueError(
                "nesterov=True must come with momentum > 0 and dampening=0; "
                f"got momentum={options['momentum']!r}, dampening={options['dampening']!r}"
            )
        accelerated = options["acceleration"] != "none"
        return Rule(
            transform="agr" if options["agr"] else "none",
            moments="nesterov" if options["nesterov"] else "momentum",
            acceleration=options["acceleration"],
            decay=options["decay"] or ("proximal" if accelerated else "l2"),
            **kept(options),
        )
