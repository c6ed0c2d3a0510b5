"""Fitting a state dict, ours or torch's, to an optimizer, all of it checked before anything is changed."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
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


def _group(cls: type[RuleOptimizer], mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    if theirs.get("amsgrad"):
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
    mine = {name: _tensor(param, state[name], name, key) for name in rule.state_names if state.get(name) is not None}
    if any(name not in mine for name in rule.moments_kind.state_names):
        return {}
    step = state.get("step", 1)
    try:
        count = float(step)
    except (TypeError, ValueError, RuntimeError):
        count = -1.0
    if not (math.isfinite(count) and count >= 0):
        raise ValueError(f"state_dict: step of parameter {key} must be a finite number >= 0; got {step!r}")
    return {"step": torch.tensor(count, dtype=torch.float32, device="cpu"), **mine}


def _tensor(param: Tensor, value: Any, name: str, key: object) -> Tensor:
    if not isinstance(value, Tensor) or value.shape != param.shape or not value.is_floating_point():
        got = f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
        raise ValueError(
            f"state_dict: {name} of parameter {key} must be a floating point tensor of shape {tuple(param.shape)}; "
            f"got {got}"
        )
    if mesh_of(value) != mesh_of(param):
        raise ValueError(
            f"state_dict: {name} of parameter {key} must be sharded as the parameter is. Load it by "
            "torch.distributed.checkpoint.state_dict.set_optimizer_state_dict, which shards what is whole"
        )
    value = placed_like(param, value.detach())
    return like(param, local(value).to(local(param).device, compute_dtype(param.dtype), copy=True))
