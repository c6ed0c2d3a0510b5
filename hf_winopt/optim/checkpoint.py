"""Fitting a state dict, ours or torch's, to an optimizer, all of it checked before anything is changed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..rules import MOMENTS, MOVEMENTS, ROUNDING, Rule, scale_of
from .foreign import writer
from .groups import Grouped, check_group
from .levels import rule_for
from .loaded import loaded
from .options import OF_TORCH, plain
from .restated import OLDER

FORM = ("acceleration", "decay", "agr", "skip_nonfinite", "state", "keep_rounding")
"""What belongs to the optimizer, not to the checkpoint: options that make the rule, or guard the run."""

FOREIGN = ("amsgrad", "decoupled_weight_decay", *OF_TORCH)
"""Options of torch's optimizers that have no meaning here."""

_TENSORS = {"max_exp_avg_sq", ROUNDING}.union(
    *(moments.state_names for moments in MOMENTS.values()), *(movement.state_names for movement in MOVEMENTS.values())
)
_OURS = {"step", "mu_product", *OLDER, *_TENSORS, *map(scale_of, _TENSORS)}
"""What a rule keeps, or torch's Adam and NAdam; whatever else is kept of a parameter is somebody else's, and stays."""


def fitted(optimizer: Grouped, incoming: Mapping[str, Any]) -> tuple[list[dict[str, Any]], dict[Any, Any]]:
    """The groups of a state dict with this optimizer's form, and its state on the parameters' devices.

    Raises:
        ValueError: another optimizer's; or names the group or the parameter that does not fit, and why.
    """
    _check_form(incoming)
    own, saved = optimizer.param_groups, incoming["param_groups"]
    if [len(group["params"]) for group in own] != [len(group["params"]) for group in saved]:
        raise ValueError(
            f"state_dict must have parameter groups of {[len(g['params']) for g in own]} parameters; "
            f"got {[len(g['params']) for g in saved]}"
        )
    _refuse_anothers(optimizer, incoming)
    groups: list[dict[str, Any]] = []
    states: dict[Any, Any] = dict(incoming["state"])
    renewed: list[str] = []
    for mine, theirs in zip(own, saved):
        groups.append(_group(type(optimizer), mine, theirs))
        rule = optimizer.rule(groups[-1])
        for param, key in zip(mine["params"], theirs["params"]):
            if key in states:
                states[param] = _state(param, states.pop(key), rule_for(rule, param), key, renewed)
    if renewed:
        warnings.warn(
            f"the moments of {len(renewed)} parameters start anew, since the state dict has not got all of them: it "
            f"{renewed[0]}",
            stacklevel=5,
        )
    return groups, states


def overruled(own: Sequence[Mapping[str, Any]], loaded: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Any, Any]]:
    """Option -> what it was, and what it is in the groups that replace these; the first group of each speaks."""
    found: dict[str, tuple[Any, Any]] = {}
    for mine, theirs in zip(own, loaded):
        for option, given in mine.items():
            stays = theirs.get(option)
            if option in ("params", "lr") or given is None or isinstance(given, Tensor) or _same(given, stays):
                continue
            found.setdefault(option, (given, stays))
    return found


def _same(given: Any, stays: Any) -> bool:
    """Whether two options are the same; a sequence may have come through a file as a list."""
    both = [tuple(each) if isinstance(each, list) else each for each in (given, stays)]
    return bool(both[0] == both[1])


def _check_form(incoming: Any) -> None:
    """
    Raises:
        ValueError: not of the form that `state_dict()` has.
    """
    if lacking := {"state", "param_groups"}.difference(incoming):
        raise ValueError(f"state_dict must have 'state' and 'param_groups'; got one without {sorted(lacking)}")
    states, groups = incoming["state"], incoming["param_groups"]
    if not isinstance(states, Mapping):
        raise ValueError(f"state_dict: state must be a dict of every parameter's own; got {states!r}")
    if not isinstance(groups, Sequence) or not all(map(_is_group, groups)):
        raise ValueError(
            "state_dict: param_groups must be a list of dicts, each with the numbers or names of its parameters as "
            f"'params'; got {groups!r}"
        )


def _is_group(group: Any) -> bool:
    keys = group.get("params") if isinstance(group, Mapping) else None
    return isinstance(keys, (list, tuple)) and all(isinstance(key, (int, str)) for key in keys)


def _refuse_anothers(optimizer: Grouped, incoming: Mapping[str, Any]) -> None:
    """
    Raises:
        ValueError: by its look another optimizer wrote it; its numbers would be taken, and its state could not.
    """
    groups, states = incoming["param_groups"], incoming["state"]
    kept = [states[key] for group in groups for key in group["params"] if key in states]
    moments = optimizer.rule(optimizer.param_groups[0]).moments_kind.state_names
    if (who := writer(moments, optimizer.defaults, kept, groups)) is not None:
        ours = type(optimizer).__name__
        raise ValueError(
            f"state_dict must be of {ours}, or of an optimizer that keeps the same moments ({', '.join(moments)}); got "
            f"one that was written by another optimizer, by its look {who}. Go on with that one, or begin {ours} with "
            "the weights alone: with Trainer, --model_name_or_path CHECKPOINT in place of --resume_from_checkpoint"
        )


def _group(cls: type[Grouped], mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    if theirs.get("amsgrad") is True:
        warnings.warn("the state dict was made with amsgrad=True, which goes on here without it", stacklevel=6)
    kept = {name: plain(value) for name, value in theirs.items() if name not in FOREIGN}
    defaults = {name: value for name, value in mine.items() if name != "params"}
    group = {**defaults, **kept, **{name: mine[name] for name in FORM if name in mine}}
    check_group(group, cls)
    return group


def _state(param: Tensor, state: Any, rule: Rule, key: object, renewed: list[str]) -> dict[str, Any]:
    """What was kept of a parameter: what the rule keeps in this optimizer's types, on the parameter's device.

    Moments belong to one step count: where one of them is missing, all start as at step 1. Where only the count is
    missing (torch's SGD keeps none) the next step is not the first.
    """
    if not isinstance(state, Mapping):
        raise ValueError(f"state_dict: state of parameter {key} must be a dict; got {state!r}")
    others = {name: _moved(param, value) for name, value in state.items() if name not in _OURS}
    names = (*rule.state_names, *_other_names(rule, state))
    mine: dict[str, Tensor] = {}
    for name in names:
        if state.get(name) is not None:
            mine.update(loaded(param, state, name, key, rule))
    moments = rule.moments_kind.state_names
    if all(name in mine for name in moments):
        return {"step": _step(state.get("step", 1), key), **mine, **others}
    if mine:
        lacking = next(name for name in moments if name not in mine)
        renewed.append(f"has {', '.join(mine)} of parameter {key}, and no {lacking}")
    return others


def _other_names(rule: Rule, state: Mapping[str, Any]) -> list[str]:
    """What the state has in place of a distance that the rule keeps: as of version 0.1, or another level."""
    if rule.acceleration == "none":
        return []
    for name in ("x_gap", ROUNDING):
        if name in state:
            return [] if name in rule.gaps else [name]
    return list(OLDER)[: len(rule.gaps)]


def _moved(param: Tensor, value: Any) -> Any:
    """What somebody else keeps of a parameter, with every tensor in it copied to the parameter's device."""
    if isinstance(value, Tensor):
        return value.detach().to(param.device, copy=True)
    if isinstance(value, dict):
        return {name: _moved(param, each) for name, each in value.items()}
    return type(value)(_moved(param, each) for each in value) if type(value) in (list, tuple) else value


def _step(value: Any, key: object) -> Tensor:
    try:
        count = -1.0 if isinstance(value, (str, bytes)) else float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        count = -1.0
    step = torch.tensor(count, dtype=torch.float32, device="cpu")
    if not (step.isfinite() and step >= 0):
        raise ValueError(f"state_dict: step of parameter {key} must be a finite number >= 0; got {value!r}")
    return step
