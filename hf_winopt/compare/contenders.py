"""Who is compared: `adamw_torch_fused,adan[eps=1e-6],sgd[lr=0.1]` as names, options and learning rates."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from hf_winopt.compare import rates
from hf_winopt.integrations import parsing
from hf_winopt.optim.composed import COMPOSED
from hf_winopt.optim.registry import OPTIMIZERS, suggestion

# transformers' own whose rate is known beside AdamW's: an expression for the start of the name, and the multiple.
_SCALES = {
    r"(paged_)?(adamw|ademamix)_|ademamix$|stable_adamw|grokadamw|apollo_adamw|galore_adamw": 1.0,
    r"(paged_)?lion": 0.2,
    r"rmsprop": 1.0,
    r"sgd$": 1000.0,
}


TRAINERS = ("weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon")
"""What Trainer has arguments of its own for, which an optimizer may have otherwise than the others."""


@dataclass(frozen=True)
class Contender:
    """An optimizer with its options.

    Args:
        label: as it was given, and as it stands in the report.
        name: what `--optim` takes.
        optim_args: what `--optim_args` takes; empty for none.
        arguments: more words for the script, of those in `TRAINERS`.
        rates: the learning rates to begin with, rising.
    """

    label: str
    name: str
    optim_args: str
    rates: tuple[float, ...]
    arguments: tuple[str, ...] = ()

    @property
    def is_ours(self) -> bool:
        """Whether it is of this package, and not transformers' own."""
        return self.name in OPTIMIZERS or self.name in COMPOSED


def parse(optims: str, lrs: str, adamw_lr: float) -> tuple[Contender, ...]:
    """The contenders.

    Args:
        optims: names with commas between them; options follow a name in brackets, as `--optim_args` takes them, or
            one of `TRAINERS`. `lr` among them is the middle of the grid in place of the advised one.
        lrs: "auto", or learning rates with commas between them, for all contenders.
        adamw_lr: AdamW's rate on this task; "auto" is a grid around this times what is advised.

    Raises:
        ValueError: an unknown or repeated name, a malformed option or rate, or a name without advice under "auto".
    """
    labels = [label.strip() for label in re.split(r",(?![^\[]*\])", optims)]
    if repeated := {label for label in labels if labels.count(label) > 1}:
        raise ValueError(f"--optims names {', '.join(sorted(repeated))} twice; options in brackets tell two apart")
    return tuple(_contender(label, lrs, adamw_lr) for label in labels)


def _contender(label: str, lrs: str, adamw_lr: float) -> Contender:
    match = re.fullmatch(r"([\w.-]+)(?:\[(.*)\])?", label)
    if match is None:
        raise ValueError(f"--optims: {label!r} is not of the form name or name[option=value,...]")
    name = match[1]
    _check_name(name)
    options = dict(parsing.pieces(match[2]))
    centre = options.pop("lr", None)
    words = tuple(word for key in TRAINERS if key in options for word in (f"--{key}", options.pop(key)))
    optim_args = ",".join(f"{key}={value}" for key, value in options.items())
    if centre is not None and lrs != "auto":
        raise ValueError(f"--optims: {label} has a learning rate of its own, and --lrs gives rates for all")
    if lrs != "auto":
        return Contender(label, name, optim_args, _explicit(lrs), words)
    middle = adamw_lr * _scale(label, name) if centre is None else rates.positive(centre, f"--optims: {label}: lr")
    return Contender(label, name, optim_args, rates.around(middle), words)


def _check_name(name: str) -> None:
    from transformers.training_args import OptimizerNames

    known = [entry.value for entry in OptimizerNames]
    if name not in known:
        raise ValueError(
            f"--optims: unknown optimizer {name!r}{suggestion(name, known)} "
            "`hf-winopt list` prints ours; transformers' own can be named too"
        )


def _scale(label: str, name: str) -> float:
    if known := OPTIMIZERS.get(name) or COMPOSED.get(name):
        return known.lr_scale
    for pattern, scale in _SCALES.items():
        if re.match(pattern, name):
            return scale
    raise ValueError(f"--optims: no learning rate is known for {label}: say {name}[lr=RATE], or give --lrs for all")


def _explicit(lrs: str) -> tuple[float, ...]:
    values = [rates.positive(text, "--lrs") for text in lrs.split(",")]
    if sorted(set(values)) != values:
        raise ValueError(f"--lrs {lrs}: the rates must rise, each given once")
    return tuple(values)


def labels(contenders: Sequence[Contender]) -> tuple[str, ...]:
    """Their labels, in order."""
    return tuple(contender.label for contender in contenders)
