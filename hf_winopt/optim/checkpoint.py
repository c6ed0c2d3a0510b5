"""Fitting a state dict, ours or torch's, to an optimizer, all of it checked before anything is changed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..engine import compute_dtype, like, local, mesh_of, placed_like
from ..rules import Rule
from .options import check_options

if TYPE_CHECKING:
    from .base import RuleOptimizer

FORM = ("acceleration", "decay", "agr", "skip_nonfinite")
"""What belongs to the optimizer, not to the checkpoint: options that make the rule, or guard the run."""

FOREIGN = ("amsgrad", "foreach", "capturable", "differentiable", "fused", "decoupled_weight_decay")
"""Options of torch's optimizers that have no meaning here."""

States = dict[Tensor, dict[str, Tensor]]


def check_group(group: Mapping[str, Any], cls: type[RuleOptimizer]) -> None:
    """Check the options of a parameter group one by one and together.

    Raises:
        ValueError: names the option, its value and what would be right.
    """
    check_options(group, cls.checks)
    cls.rule(group)
    if group.get("agr_steps") is not None and not group.get("agr"):
        warnings.warn("agr_steps has no effect without agr=True", stacklevel=4)


def fitted(optimizer: RuleOptimizer, incoming: Mapping[str, Any]) -> tuple[list[dict[str, Any]], States]:
    """The groups of a state dict with this optimizer's form, and its state on the parameters' devices.

    Raises:
        ValueError: names the group or the parameter that does not fit, and why.
    """
    _check_form(incoming)
    own, saved = optimizer.param_groups, incoming["param_groups"]
    if [len(group["params"]) for group in own] != [len(group["params"]) for group in saved]:
        raise ValueError(
            f"state_dict must have parameter groups of {[len(g['params']) for g in own]} parameters; "
            f"got {[len(g['params']) for g in saved]}"
        )
    groups, states = [], {}
    for mine, theirs in zip(own, saved):
        groups.append(_group(type(optimizer), mine, theirs))
        rule = optimizer.rule(groups[-1])
        for param, key in zip(mine["params"], theirs["params"]):
            if key in incoming["state"]:
                states[param] = _state(param, incoming["state"][key], rule, key)
    return groups, states


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


def _group(cls: type[RuleOptimizer], mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    if theirs.get("amsgrad") is True:
        warnings.warn("the state dict was made with amsgrad=True, which goes on here without it", stacklevel=6)
    kept = {name: value for name, value in theirs.items() if name not in FOREIGN}
    defaults = {name: value for name, value in mine.items() if name != "params"}
    group = {**defaults, **kept, **{name: mine[name] for name in FORM if name in mine}}
    check_group(group, cls)
    return group


def _state(param: Tensor, state: Mapping[str, Any], rule: Rule, key: object) -> dict[str, Tensor]:
    """The part of a saved state that the rule keeps, in this optimizer's types, on the parameter's device.

    Moments belong to one step count: where one of them is missing, all start as at step 1. Where only the count is
    missing (torch's SGD keeps none) the next step is not the first.
    """
    if not isinstance(state, Mapping):
        raise ValueError(f"state_dict: state of parameter {key} must be a dict; got {state!r}")
    mine = {name: _tensor(param, state[name], name, key) for name in rule.state_names if state.get(name) is not None}
    if any(name not in mine for name in rule.moments_kind.state_names):
        return {}
    return {"step": _step(state.get("step", 1), key), **mine}


def _step(value: Any, key: object) -> Tensor:
    try:
        count = -1.0 if isinstance(value, (str, bytes)) else float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        count = -1.0
    step = torch.tensor(count, dtype=torch.float32, device="cpu")
    if not (step.isfinite() and step >= 0):
        raise ValueError(f"state_dict: step of parameter {key} must be a finite number >= 0; got {value!r}")
    return step


def _tensor(param: Tensor, value: Any, name: str, key: object) -> Tensor:
    if not isinstance(value, Tensor) or value.shape != param.shape or not value.is_floating_point():
        got = f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
        raise ValueError(
            f"state_dict: {name} of parameter {key} must be a floating point tensor of shape {tuple(param.shape)}; "
            f"got {got}"
        )
    if value.layout != torch.strided or value.is_meta:
        raise ValueError(
            f"state_dict: {name} of parameter {key} must be dense and hold its values; "
            f"got one of layout {value.layout} on {value.device}"
        )
    if mesh_of(value) != mesh_of(param):
        raise ValueError(
            f"state_dict: {name} of parameter {key} must be sharded as the parameter is. Load it by "
            "torch.distributed.checkpoint.state_dict.set_optimizer_state_dict, which shards what is whole"
        )
    value = placed_like(param, value.detach())
    kept = local(value).to(local(param).device, compute_dtype(param.dtype), copy=True)
    squares = name == "exp_avg_sq"  # whose elements stand still where they have become infinite, and the others go on
    right = "a number >= 0" if squares else "finite"
    wrong = kept[~((kept >= 0) if squares else kept.isfinite())]
    if wrong.numel():
        raise ValueError(f"state_dict: {name} of parameter {key} must be {right}; got {wrong[0].item()} in it")
    return like(param, kept)
