"""The optimizers' options as typed fields."""

# No `from __future__ import annotations`: HfArgumentParser needs the types themselves.
from dataclasses import dataclass, field, fields
from typing import Any

from hf_winopt.engine import BACKENDS
from hf_winopt.rules import STATES

# Where the option's own name says too little, or something else, among a hundred other arguments.
_OPTION_OF_FIELD = {"optim_backend": "backend", "optim_state": "state", "optim_decay": "decay", "adan_betas": "betas"}
_FLAG = {"nargs": "?", "const": True}  # `--nesterov` alone means true


@dataclass
class TypedOptions:
    """The fields of `WinOptArguments`, each an option; None leaves the optimizer's default."""

    reckless_steps: list[float] | None = field(
        default=None,
        metadata={"help": "Win and Win2: the two reckless step ratios r1 r2 (the papers: 2 8)."},
    )
    agr_steps: int | None = field(
        default=None,
        metadata={"help": "AGR: the step after which the gradient is regularized no more (otherwise it always is)."},
    )
    agr_stop_ratio: float | None = field(
        default=None,
        metadata={"help": "AGR: agr_steps as a share of all training steps, above 0 and at most 1."},
    )
    weight_decay_gamma: float | None = field(
        default=None,
        metadata={"help": "The weight decay shrinks by this factor every step (adamw_d, adam_l2_d: 0.99999)."},
    )
    optim_backend: str | None = field(
        default=None,
        metadata={"help": f"What computes the step: {', '.join(('auto', *BACKENDS))}."},
    )
    optim_state: str | None = field(
        default=None,
        metadata={"help": f"How the state of large matrices is stored: {', '.join(STATES)} (docs/state.md)."},
    )
    keep_rounding: bool | None = field(
        default=None,
        metadata={
            "help": "With bf16 or fp16 parameters: keep what rounding takes from them (true unless given).",
            **_FLAG,
        },
    )
    optim_decay: str | None = field(
        default=None,
        metadata={"help": "Form of the weight decay: decoupled, proximal, l2 or in_update (or the optimizer's)."},
    )
    adan_betas: list[float] | None = field(
        default=None,
        metadata={"help": "Adan: its three betas (0.98 0.92 0.99 unless given)."},
    )
    restart_every: int | None = field(
        default=None,
        metadata={"help": "Adan: steps after which all moments start anew (0: never)."},
    )
    momentum: float | None = field(
        default=None,
        metadata={"help": "SGD, Muon, RMSprop: the momentum (0.9, 0.95, 0 unless given)."},
    )
    dampening: float | None = field(
        default=None,
        metadata={"help": "SGD: the dampening of the momentum."},
    )
    nesterov: bool | None = field(
        default=None,
        metadata={"help": "SGD, Muon: Nesterov's form of the momentum.", **_FLAG},
    )
    momentum_decay: float | None = field(
        default=None,
        metadata={"help": "NAdamW: how fast the momentum grows to beta1 (0.004 unless given)."},
    )
    muon_include: str | None = field(
        default=None,
        metadata={"help": "Muon: a regular expression for names of matrices that it trains in any case."},
    )
    muon_exclude: str | None = field(
        default=None,
        metadata={"help": "Muon: the same of those that AdamW trains in any case."},
    )
    ns_steps: int | None = field(
        default=None,
        metadata={"help": "Muon: steps of the Newton-Schulz iteration that orthogonalizes (5 unless given)."},
    )
    always_adapt: bool | None = field(
        default=None,
        metadata={"help": "LAMB: the trust ratio also where the weight decay is 0.", **_FLAG},
    )
    skip_nonfinite: bool | None = field(
        default=None,
        metadata={"help": "Leave out a step whose gradients are not finite, and count it.", **_FLAG},
    )
    inverse_sqrt_lr: bool | None = field(
        default=None,
        metadata={"help": "AdaL: multiply the learning rate by 1/sqrt(step), as its theory does.", **_FLAG},
    )


def typed_options(arguments: Any) -> dict[str, tuple[str, Any]]:
    """field -> (option, value) of the fields above that were given; empty if `arguments` has not got them."""
    if not isinstance(arguments, TypedOptions):
        return {}
    given = {item.name: getattr(arguments, item.name) for item in fields(TypedOptions)}
    return {name: (_OPTION_OF_FIELD.get(name, name), value) for name, value in given.items() if value is not None}
