"""The state of an optimizer: how it is started, what it must be like, and whether it was shown to others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .. import engine
from ..rules import Rule, scale_of
from .restated import OLDER, is_as_kept, restate, zeros

HOST = torch.device("cpu")


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
        if not is_as_kept(state, engine.local(param), rule):
            restate(state, param, rule)
        for name, encoding in rule.encodings.items():
            if name not in state:
                state.update(zeros(name, param, encoding))


def is_complete(state: Mapping[str, Any], rule: Rule) -> bool:
    """Whether all is there that the rule keeps of a parameter."""
    return "step" in state and all(name in state for name in rule.kept)


def is_started(state: Mapping[str, Any], z: Tensor, rule: Rule) -> bool:
    """Whether `start` would leave it as it is, for engines that count on the host."""
    step = state.get("step")
    counts = isinstance(step, Tensor) and step.dtype == torch.float32 and step.device == HOST
    return counts and is_complete(state, rule) and is_as_kept(state, z, rule)


def check(state: Mapping[str, Any], param: Tensor, rule: Rule) -> None:
    """Check what there is of the state of a parameter, or of the shard of it that is here.

    Raises:
        ValueError: it is not as the parameter is; compiled code would read beyond its end.
    """
    z = engine.local(param)
    if z.is_meta:  # there is nothing to step
        return
    step = state.get("step", 0.0)
    if not isinstance(step, (int, float, Tensor)) or (isinstance(step, Tensor) and step.numel() != 1):
        raise ValueError(f"state 'step' of a parameter must be a number, or a tensor of one; got {step!r}")
    for name in (*rule.state_names, *OLDER):
        if name not in state:
            continue
        scaled = scale_of(name) in state
        _check_tensor(name, engine.local(state[name]), z.shape, _types(name, z, scaled), z)
        if scaled:
            shape = torch.Size((z.shape[0], engine.blocks_per_row(z.shape)) if z.ndim > 1 else (0,))
            _check_tensor(scale_of(name), engine.local(state[scale_of(name)]), shape, (torch.float32,), z)


def _types(name: str, z: Tensor, scaled: bool) -> tuple[torch.dtype, ...]:
    """What a tensor of a state may be of: what is stored at any level, and half precision that somebody made of it.

    The first is named where it is of none.
    """
    if scaled:
        return (torch.int8, torch.uint8, torch.float16)
    dtype = engine.compute_dtype(z.dtype)
    return (dtype, torch.bfloat16, torch.float16) if dtype == torch.float32 else (dtype,)


def _check_tensor(name: str, tensor: Any, shape: torch.Size, types: tuple[torch.dtype, ...], z: Tensor) -> None:
    right = isinstance(tensor, Tensor) and tensor.shape == shape and tensor.dtype in types
    if not right or tensor.device != z.device:
        got = repr(tensor)
        if isinstance(tensor, Tensor):
            got = f"shape {tuple(tensor.shape)} and {tensor.dtype}, on {tensor.device}"
        raise ValueError(
            f"state {name!r} of a parameter must be of shape {tuple(shape)} and {types[0]}, on {z.device}, as the "
            f"parameter is; got {got}"
        )
    if engine.has_no_address(tensor) is None and engine.reaches_beyond(tensor):
        raise ValueError(f"state {name!r} of a parameter must have memory for every element; got less")
