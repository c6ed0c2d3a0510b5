"""Whose state dict it is, by its look: one that another optimizer wrote is not to be gone on from in silence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..rules import MOMENTS

_OF_STATE = {
    "acc_delta": "Adadelta",
    "square_avg": "RMSprop",
    "sum": "Adagrad",
    "exp_inf": "Adamax",
    "row_var": "Adafactor",
    "variance": "Adafactor",
    "exp_avg_sq_row": "Adafactor",
    "RMS": "Adafactor",
    "state1": "an optimizer of bitsandbytes",
    "step_size": "Rprop",
    "ax": "ASGD",
    "func_evals": "LBFGS",
    "exp_avg_diff": "Adan",
    "momentum_buffer": "SGD",
}
"""Names in the state of a parameter that tell who keeps them."""

_OF_GROUPS = {
    "lr_decay": "Adagrad",
    "centered": "RMSprop",
    "rho": "Adadelta",
    "etas": "Rprop",
    "lambd": "ASGD",
    "history_size": "LBFGS",
    "beta2_decay": "Adafactor",
    "clip_threshold": "Adafactor",
    "ns_steps": "Muon",
}
"""Options that tell whose they are."""

_OF_FAMILIES = {"momentum": "SGD", "betas": "Adam or one like it"}
"""Options that tell so where the optimizer's own are missing, and there is no state yet."""

_MOMENTS = {name for kind in MOMENTS.values() for name in kind.state_names}


def writer(
    moments: Iterable[str], options: Mapping[str, Any], states: Iterable[Any], groups: Iterable[Mapping[str, Any]]
) -> str | None:
    """Who wrote a state dict that an optimizer cannot go on from; None where it can.

    Args:
        moments: what the optimizer keeps of every parameter.
        options: those that it has, with their defaults.
        states: what was kept of each parameter.
        groups: the parameter groups of the state dict.
    """
    own, kept = set(moments), [set(state) for state in states if isinstance(state, Mapping)]
    names, said = set().union(*kept), set().union(*groups)
    told = [
        *(who for name, who in _OF_STATE.items() if name in names - own),
        *(who for option, who in _OF_GROUPS.items() if option in said),
    ]
    if told:
        return told[0]
    if any(own <= each for each in kept):
        return None
    if names & _MOMENTS:
        adams = {"exp_avg", "exp_avg_sq"} <= names
        return "Adam or one like it" if adams else f"one that keeps {', '.join(sorted(map(str, names)))}"
    if not said & _OF_FAMILIES.keys() & options.keys():
        told = [who for option, who in _OF_FAMILIES.items() if option in said]
    return told[0] if told else _by_betas(options, groups)


def _by_betas(options: Mapping[str, Any], groups: Iterable[Mapping[str, Any]]) -> str | None:
    for group in groups:
        theirs, ours = group.get("betas"), options.get("betas")
        if isinstance(theirs, (tuple, list)) and ours is not None and {len(theirs), len(ours)} == {2, 3}:
            return "Adan" if len(theirs) == 3 else "Adam or one like it"
    return None
