"""One tensor of a state dict, at any level of state, checked and on its parameter's device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .. import engine
from ..rules import FLOAT32, REMAINDER, ROUNDING, Rule, scale_of
from .restated import scale_shape

_UNSCALED = {0.0, 127.0, 255.0, 32768.0}
"""The largest code of a block at the levels that have scales."""


def _codes(name: str) -> tuple[torch.dtype, ...]:
    """What has scales: squares are never negative."""
    return (torch.uint8, torch.float16) if name == "exp_avg_sq" else (torch.int8,)


def loaded(param: Tensor, state: Mapping[str, Any], name: str, key: object, rule: Rule) -> dict[str, Tensor]:
    """A tensor of a parameter's state, with its scales if it has any; else values, as the rule stores them if it can.

    Raises:
        ValueError: names the tensor and the parameter, and says what would be right.
    """
    scaled = state.get(scale_of(name)) is not None and param.ndim > 1
    codes = _fitted(param, state[name], name, key, param.shape, scaled)
    if scaled:
        scales = _fitted(param, state[scale_of(name)], scale_of(name), key, torch.Size(scale_shape(param)), False)
        scales = scales.to(torch.float32)
        _check(
            scales, f"{scale_of(name)} of parameter {key}", "a finite number >= 0", ~(scales.isfinite() & (scales >= 0))
        )
        if codes.dtype == torch.float16:
            _check(codes, f"{name} of parameter {key}", "a finite number >= 0", ~(codes.isfinite() & (codes >= 0)))
        return {name: engine.like(param, codes), scale_of(name): engine.like(param, scales, scale_shape(param))}
    encoding = rule.encodings.get(name, FLOAT32)
    as_it_is = encoding is not FLOAT32 and not encoding.is_blocked and codes.dtype == encoding.dtype
    if not as_it_is:
        codes = codes.to(REMAINDER.dtype if name == ROUNDING else engine.compute_dtype(param.dtype))
    if engine.has_no_address(codes) is not None:  # nor has the parameter, where they are alike: nothing to look at
        return {name: engine.like(param, codes)}
    squares = name == "exp_avg_sq"  # whose elements stand still where they have become infinite, and the others go on
    wrong = ~((codes >= 0) if squares else codes.isfinite())
    _check(codes, f"{name} of parameter {key}", "a number >= 0" if squares else "finite", wrong)
    if not as_it_is and name != ROUNDING:
        _refuse_codes(codes, f"{name} of parameter {key}")
    return {name: engine.like(param, codes)}


def _fitted(param: Tensor, value: Any, name: str, key: object, shape: torch.Size, scaled: bool) -> Tensor:
    """A tensor of that shape, sharded as the parameter is: the shard of it that is here, a copy."""
    what = f"state_dict: {name} of parameter {key}"
    types = _codes(name)
    fits = isinstance(value, Tensor) and (value.dtype in types if scaled else value.is_floating_point())
    if not fits or value.shape != shape:
        got = f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
        codes = f"{' or '.join(str(each).removeprefix('torch.') for each in types)}, since it has scales, and"
        right = codes if scaled else "a floating point tensor"
        raise ValueError(f"{what} must be {right} of shape {tuple(shape)}; got {got}")
    if value.layout != torch.strided or value.is_meta:
        raise ValueError(
            f"{what} must be dense and hold its values; got one of layout {value.layout} on {value.device}"
        )
    if engine.mesh_of(value) != engine.mesh_of(param):
        raise ValueError(
            f"{what} must be sharded as the parameter is. Load it by "
            "torch.distributed.checkpoint.state_dict.set_optimizer_state_dict, which shards what is whole"
        )
    value = engine.local(engine.placed_like(param, value.detach()))
    return value.to(engine.local(param).device, copy=True)


def _check(values: Tensor, what: str, right: str, wrong: Tensor) -> None:
    if wrong.any():
        raise ValueError(f"state_dict: {what} must be {right}; got {values[wrong][0].item()} in it")


def _refuse_codes(values: Tensor, what: str) -> None:
    """
    Raises:
        ValueError: codes without the scales that they are of: `torch.distributed.checkpoint` loads what has the same
            name into a tensor of any type, and leaves out what the optimizer does not ask for.
    """
    if values.ndim < 2 or not values.numel() or engine.row_length(values.shape) == 0:
        return
    largest = engine.in_blocks(values).abs().amax(1)
    if values.numel() >= 4096 and largest.any() and set(largest.unique().tolist()) <= _UNSCALED:
        raise ValueError(
            f"state_dict: {what} holds codes of another level of state without their scales. Load it with the level "
            "that it was saved at, and then set the group's 'state' to the one that you want"
        )
