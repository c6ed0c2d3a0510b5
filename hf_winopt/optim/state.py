"""The state of an optimizer: how it is started, what it must be like, and whether it was shown to others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .. import engine
from ..rules import Rule

HOST = torch.device("cpu")
SEQUENCES = {"x", "y"}


class HoldsState(torch.optim.Optimizer):
    """Knows when the state has been shown to others.

    Compiled code goes by addresses, and a tensor can be moved behind its name (`.data = ...`). To ask every tensor of
    the state at every step would be half of what the host does in one. So it is asked after `optimizer.state` was:
    nobody comes by a tensor otherwise.
    """

    _shown = True

    @property
    def state(self) -> defaultdict[Any, Any]:  # type: ignore[override]
        """Parameter -> its state, by name."""
        self._shown = True
        return self.__dict__["state"]

    @state.setter
    def state(self, value: defaultdict[Any, Any]) -> None:
        self._shown = True
        self.__dict__["state"] = value

    @property
    def _own_state(self) -> defaultdict[Any, Any]:
        """As `state`, for who hands nothing on."""
        return self.__dict__["state"]


def start(state: dict[str, Any], param: Tensor, rule: Rule, counted_on: torch.device = HOST) -> None:
    """Make what is missing of a parameter's state, as at step 1, with the step count on that device."""
    step = state.get("step", 0.0)
    with torch.inference_mode(False):  # else it could never be written to outside of that mode
        if not isinstance(step, Tensor):
            step = torch.tensor(float(step), dtype=torch.float32, device=counted_on)
        state["step"] = step.to(counted_on, torch.float32)
        for name in _stale(state, rule):
            del state[name]
        z, dtype = engine.local(param), engine.compute_dtype(param.dtype)
        for name in rule.state_names:
            if name not in state:
                zeros = torch.zeros_like(z, dtype=dtype, memory_format=torch.preserve_format)
                # x and y start at z. The copy keeps the layout of the parameter: they then share one flat order
                state[name] = engine.like(param, zeros.copy_(z.detach()) if name in SEQUENCES else zeros)


def is_complete(state: Mapping[str, Any], rule: Rule) -> bool:
    """Whether all is there that the rule keeps of a parameter."""
    return "step" in state and all(name in state for name in rule.state_names)


def is_started(state: Mapping[str, Any], rule: Rule) -> bool:
    """Whether `start` would leave it as it is, for engines that count on the host."""
    step = state.get("step")
    counts = isinstance(step, Tensor) and step.dtype == torch.float32 and step.device == HOST
    return counts and is_complete(state, rule) and not _stale(state, rule)


def _stale(state: Mapping[str, Any], rule: Rule) -> set[str]:
    """Left behind when `acceleration` was switched: it would be out of date when that is switched back."""
    return SEQUENCES.intersection(state).difference(rule.state_names)


def check(state: Mapping[str, Any], z: Tensor, rule: Rule) -> None:
    """Check what there is of the state of a parameter, or of the shard `z` of one.

    Raises:
        ValueError: it is not as the parameter is; compiled code would read beyond its end.
    """
    if z.is_meta:  # there is nothing to step
        return
    step = state.get("step", 0.0)
    if not isinstance(step, (int, float, Tensor)) or (isinstance(step, Tensor) and step.numel() != 1):
        raise ValueError(f"state 'step' of a parameter must be a number, or a tensor of one; got {step!r}")
    right = (z.shape, engine.compute_dtype(z.dtype), z.device)
    for name in rule.state_names:
        if name not in state:
            continue
        tensor = engine.local(state[name])
        if not isinstance(tensor, Tensor) or (tensor.shape, tensor.dtype, tensor.device) != right:
            got = repr(tensor)
            if isinstance(tensor, Tensor):
                got = f"shape {tuple(tensor.shape)} and {tensor.dtype}, on {tensor.device}"
            raise ValueError(
                f"state {name!r} of a parameter must be of shape {tuple(right[0])} and {right[1]}, on {right[2]}, as "
                f"the parameter is; got {got}"
            )
        if engine.has_no_address(tensor) is None and engine.reaches_beyond(tensor):
            raise ValueError(f"state {name!r} of a parameter must have memory for every element; got less")
