"""AdamW, Adam and LAMB: the Adam moments, with weight decay in its three places."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.optim.optimizer import ParamsT

from ..rules import Rule
from .base import RuleOptimizer
from .groups import options_of
from .levels import kept


class AdamW(RuleOptimizer):
    """AdamW, plain, or accelerated by Win or Win2, or on gradients regularized by AGR.

    Without acceleration it is `torch.optim.AdamW`. With `acceleration="win"` a second sequence `x` takes the
    conservative step and the parameter `z` a reckless one beyond it, weight decay in both (proximal form):
    `x <- (x - eta u) / (1 + eta lam)`, `z <- c (z - r1 eta u + r1 x)`, `c = 1 / (1 + r1 + r1 eta lam)`.
    Kept of `x` is how far `z` is ahead of it: what is written into a parameter between two steps stays written. With
    bf16 or fp16 parameters `x` is finer than they are and serves as the master copy.

    Args:
        params: parameters or parameter groups; every option below but `backend` can differ per group.
        lr: learning rate, a float >= 0 or a 0-dim tensor.
        betas: decay of the first and second moment, each in [0, 1).
        eps: added to the root of the second moment.
        weight_decay: >= 0.
        acceleration: "none", "win" or "win2" (Win: Nesterov-like acceleration with weight decay, Algorithms 1 and 2).
        reckless_steps: `(r1, r2)`, the reckless steps in units of the learning rate; Win uses r1, Win2 both.
        decay: "decoupled", "proximal", "l2" or "in_update"; None is decoupled, and proximal under Win and Win2.
        agr: scale each gradient by `1 - |g| / sum|g|` (An Adaptive Gradient Regularization Method), in parameters of
            two or more dimensions and more than one element. The factor differs from 1 by about 1 / numel: 2e-6 in a
            matrix of 768 x 768.
        agr_steps: turn AGR off after so many steps; None keeps it on.
        weight_decay_gamma: weight decay is multiplied by this after every step; 0.99999 is AdamW-D
            (Towards Understanding Convergence and Generalization of AdamW).
        max_grad_norm: clip the norm of all gradients to this, inside the step; 0 is off.
        skip_nonfinite: leave out a step of all groups, as if it had not been taken, where the norm of all gradients is
            not finite: one is NaN or infinite, or its square is (1.8e19 and more in float32), which the second moment
            would not survive. Counted in `skipped_steps`, and logged. Without AMP and False, such a gradient is stepped
            with, as in torch.
        maximize: ascend instead of descend.
        state: "float32", "compact" or "8bit": how the state of large matrices is stored (docs/state.md). Under Win 12,
            5.1 or 3.1 bytes a parameter. Of a parameter of one dimension, of less than 4,096 elements or less than 64
            in a row, or float64, it is float32 always.
        keep_rounding: with bf16 or fp16 parameters, keep what rounding takes from them at each step, 2 bytes a
            parameter: they then train as float32 ones. Under Win it is kept in any case. False saves the 2 bytes, and
            loses every update below the rounding of its parameter, as torch's AdamW does.
        backend: "auto", "eager", "compile" or "triton".
        foreach, fused, capturable, differentiable: as generic code gives them to torch's optimizers. They change
            nothing here: one engine serves all, and a step can be captured. `differentiable=True` is refused.

    Raises:
        ValueError: a bad option, named with its value and what would be right.
        TypeError: a parameter that requires a gradient and is not float32, bfloat16, float16 or float64.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
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
            moments="adam",
            acceleration=options["acceleration"],
            decay=options["decay"] or ("proximal" if accelerated else "decoupled"),
            **kept(options),
        )


class Adam(RuleOptimizer):
    """Adam with l2 decay in the gradient (`torch.optim.Adam`), plain, or accelerated by Win or Win2, or with AGR.

    Args: as `AdamW`, but `weight_decay` is 0 by default, and `decay=None` is "l2", under Win and Win2 too.
    `weight_decay_gamma=0.99999` with weight decay is l2-Adam-D.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
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
        return Rule(
            transform="agr" if options["agr"] else "none",
            moments="adam",
            acceleration=options["acceleration"],
            decay=options["decay"] or "l2",
            **kept(options),
        )


class LAMB(RuleOptimizer):
    """LAMB: Adam's direction scaled per parameter to `||w|| / ||r||`; plain, accelerated by Win or Win2, or with AGR.

    `w` is the conservative sequence: `x` under Win and Win2, the parameter itself without. In groups with
    `weight_decay=0` the ratio is 1 and LAMB is Adam, unless `always_adapt=True`.

    Args: as `AdamW`, but `eps` is 1e-6 and `weight_decay` 0 by default, `decay=None` is "in_update" (proximal under Win
    and Win2), and:
        always_adapt: scale in groups without weight decay too.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        *,
        always_adapt: bool = False,
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
            moments="adam",
            acceleration=options["acceleration"],
            decay=options["decay"] or ("proximal" if accelerated else "in_update"),
            trust_ratio=options["always_adapt"] or options["weight_decay"] > 0,
            **kept(options),
        )
