"""One table of all names: what each is, what it costs, when to use it; and the way from a name to an optimizer."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch.optim.optimizer import ParamsT

from ..rules import Rule
from .adal import AdaL
from .adam import LAMB, Adam, AdamW
from .adan import Adan
from .base import RuleOptimizer
from .composed import COMPOSED, Composed
from .nadam import NAdamW
from .options import OF_TORCH
from .papers import titles
from .sgd import SGD

# Adan: 5 to 10 times AdamW's, as its authors say. LAMB and SGD: from the settings of the Win paper and of LAMB's own,
# where the rates beside AdamW's lie between 1 and 20 times (LAMB), 100 and 1500 times (SGD).
_LR_SCALES: dict[type[RuleOptimizer], float] = {Adan: 5.0, LAMB: 10.0, SGD: 1000.0}


@dataclass(frozen=True)
class Row:
    """What a name means.

    Args:
        name: what `--optim` and `create_optimizer` take.
        cls: the optimizer class.
        sources: keys of `papers.PAPERS`; several where the name combines what was published apart.
        when: one line on when to use it.
        fixed: options that make the name what it is; they cannot be given otherwise.
        defaults: options that the name sets unless they are given.
    """

    name: str
    cls: type[RuleOptimizer]
    sources: tuple[str, ...]
    when: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def lr_scale(self) -> float:
        """The learning rate to try first, as a multiple of AdamW's on the same task."""
        return _LR_SCALES.get(self.cls, 1.0)

    @property
    def paper(self) -> str:
        """The papers, by title."""
        return titles(self.sources)

    @property
    def formula(self) -> str:
        """Where in `docs/math.md` each part of the rule stands: transform (1), moments (2), movement (3)."""
        rule = self.rule
        transform = "" if rule.transform == "none" else f"1 {rule.transform}, "
        trust = " with trust ratio" if rule.trust_ratio else ""
        movement = rule.decay if rule.acceleration == "none" else f"{rule.acceleration}, {rule.decay}"
        return f"{transform}2 {rule.moments}{trust}, 3 {movement}"

    @property
    def options(self) -> dict[str, Any]:
        """Every option of the class with the value that it has under this name."""
        signature = inspect.signature(self.cls)
        own = {name: p.default for name, p in signature.parameters.items() if p.default is not p.empty}
        return {**own, **self.defaults, **self.fixed}

    @property
    def rule(self) -> Rule:
        """The rule for float32 parameters with weight decay and two or more dimensions."""
        return self.at("float32")

    def at(self, state: str) -> Rule:
        """The same with large matrices at that level of state."""
        return replace(self.cls.rule({**self.options, "weight_decay": 0.01}), state=state, remainder=False)

    @property
    def bytes_per_param(self) -> float:
        """Bytes that a step must read and write per float32 parameter, without weight decay in the gradient."""
        return self.rule.bytes_per_param(weight_decay=False)

    @property
    def state_bytes_per_param(self) -> float:
        """Bytes of state per parameter."""
        return self.rule.state_bytes_per_param()


WIN, WIN2, AGR = {"acceleration": "win"}, {"acceleration": "win2"}, {"agr": True}
L2, FADING = {"decay": "l2"}, {"weight_decay_gamma": 0.99999}

_ROWS = (
    Row("adamw_win", AdamW, ("Win",), "the first to try in place of AdamW, at AdamW's own lr", WIN),
    Row("adamw_win2", AdamW, ("Win2",), "as adamw_win, with a second reckless step", WIN2),
    Row("adamw_agr", AdamW, ("AGR",), "small tensors: it changes a gradient by about 1/numel", AGR),
    Row("adamw_win_agr", AdamW, ("Win", "AGR"), "unpublished: Win on regularized gradients", WIN | AGR),
    Row("adamw_win2_agr", AdamW, ("Win2", "AGR"), "unpublished: Win2 on regularized gradients", WIN2 | AGR),
    Row("adamw_d", AdamW, ("AdamW-D",), "long runs: weight decay fades by 1e-5 a step", {}, FADING),
    Row("adam_win", Adam, ("Win",), "where Adam is the baseline, as for Transformer-XL", WIN),
    Row("adam_win2", Adam, ("Win2",), "as adam_win, with a second reckless step", WIN2),
    Row("adam_l2", Adam, ("AdamW-D",), "the baseline that AdamW is measured against", L2),
    Row("adam_l2_d", Adam, ("AdamW-D",), "adam_l2, weight decay fades by 1e-5 a step", L2, FADING),
    Row("lamb", LAMB, ("LAMB",), "large batches; give it weight decay, without it is Adam"),
    Row("lamb_win", LAMB, ("LAMB", "Win"), "large batches, accelerated; give it weight decay", WIN),
    Row("lamb_win2", LAMB, ("LAMB", "Win2"), "as lamb_win, with a second reckless step", WIN2),
    Row("sgd_win", SGD, ("Win",), "convolutional nets; the least state of the accelerated", WIN),
    Row("sgd_win2", SGD, ("Win2",), "as sgd_win, with a second reckless step", WIN2),
    Row("adan", Adan, ("Adan",), "pre-training and fine-tuning, at 5 to 10 times AdamW's lr"),
    Row("adan_win", Adan, ("Adan", "Win"), "unpublished: Adan accelerated by Win", WIN),
    Row("adan_win2", Adan, ("Adan", "Win2"), "unpublished: Adan accelerated by Win2", WIN2),
    Row("adan_agr", Adan, ("Adan", "AGR"), "diffusion models, as in the AGR paper", AGR),
    Row("adan_win_agr", Adan, ("Adan", "Win", "AGR"), "unpublished: all three", WIN | AGR),
    Row("adan_win2_agr", Adan, ("Adan", "Win2", "AGR"), "unpublished: all three, with Win2", WIN2 | AGR),
    Row("adal", AdaL, ("AdaL",), "small image classifiers, as in its paper"),
    Row("adal_win", AdaL, ("AdaL", "Win"), "unpublished: AdaL accelerated by Win", WIN),
    Row("adal_win2", AdaL, ("AdaL", "Win2"), "unpublished: AdaL accelerated by Win2", WIN2),
    Row("nadamw", NAdamW, ("NAdam",), "the rival of Win: looks ahead for no state"),
)

OPTIMIZERS: dict[str, Row] = {row.name: row for row in _ROWS}
"""Every name, in the order of `docs/math.md`."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """What was perhaps meant by `name`, as the end of a sentence for an error message."""
    near = difflib.get_close_matches(name, list(known), n=3)
    return f"; did you mean {' or '.join(near)}?" if near else "."


def name_of(optimizer: RuleOptimizer) -> str | None:
    """The name that stands for an optimizer as it was made; None if there is none for its class with its options."""
    group, rows = optimizer.param_groups[0], {}
    for row in _ROWS:
        made_with = {**row.defaults, **row.fixed}
        if type(optimizer) is row.cls and all(group.get(option) == value for option, value in made_with.items()):
            rows[row.name] = len(made_with)
    return max(rows, key=lambda name: rows[name], default=None)


def create_optimizer(name: str, params: ParamsT, **options: Any) -> Any:
    """Make the optimizer that a name stands for.

    Args:
        name: one of `OPTIMIZERS` or `COMPOSED` (`hf-winopt list` prints them).
        params: parameters or parameter groups, as for any torch optimizer.
        options: keyword arguments of the optimizer's class (`AdamW`, `Adam`, `LAMB`, `SGD`, `Adan`, `AdaL`, `NAdamW`),
            or of what a name of `COMPOSED` is made by (`muon` asks for `model`).

    Raises:
        ValueError: an unknown name, or an option that contradicts the name or is refused by the class.
        TypeError: an option that the class does not have.
        ImportError: the library of the base is missing; says what brings it.
    """
    known: dict[str, Row | Composed] = {**OPTIMIZERS, **COMPOSED}
    if not isinstance(name, str) or name not in known:
        raise ValueError(f"unknown optimizer {name!r}{suggestion(str(name), known)} Known names: {', '.join(known)}")
    row = known[name]
    make, defaults = (row.cls, row.defaults) if isinstance(row, Row) else (row.make, {})
    for option, value in options.items():
        if option not in row.options:
            theirs = sorted(row.options.keys() - set(OF_TORCH))
            raise TypeError(
                f"{name} has no option {option!r}{suggestion(option, theirs)} Its options: {', '.join(theirs)}"
            )
        if option in row.fixed and not (isinstance(value, (str, bool)) and value == row.fixed[option]):
            raise ValueError(
                f"{name} is {make.__name__} with {option}={row.fixed[option]!r}; got {option}={value!r}. "
                f"Use another name, or {make.__name__} itself"
            )
    return make(params, **{**defaults, **row.fixed, **options})
