"""State as it was loaded, or left by another rule, as a rule keeps it: another level of state, or another version's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .. import engine
from ..rules import BLOCK, FLOAT32, REMAINDER, ROUNDING, S8, U8, U16, Encoding, Rule, dither, scale_of

OLDER = {"x": "x_gap", "y": "y_gap"}
"""The sequences that checkpoints of version 0.1 and of the papers' authors have, and the distances that they become."""

GAPS = (*OLDER.values(), ROUNDING)

_SCALED = {torch.int8: S8, torch.uint8: U8, torch.float16: U16}
"""Type of codes that have scales -> how they are read."""


def is_as_kept(state: Mapping[str, Any], z: Tensor, rule: Rule) -> bool:
    """Whether what there is of a state, checked, is stored as the rule stores it, and nothing is left to convert."""
    if any(name in state for name in OLDER) or any(gap in state for gap in GAPS if gap not in rule.gaps):
        return False
    for name, encoding in rule.encodings.items():
        if name not in state:
            return False
        right = engine.compute_dtype(z.dtype) if encoding is FLOAT32 else encoding.dtype
        if engine.local(state[name]).dtype != right or (scale_of(name) in state) != encoding.is_blocked:
            return False
        if encoding.is_blocked and not engine.local(state[name]).is_contiguous():
            return False
    return True


def restate(state: dict[str, Any], param: Tensor, rule: Rule) -> None:
    """Store a state as the rule does. Sequences of an older checkpoint become distances from the weights as they are.

    That is at the first step, and no sooner, since the model may be loaded after its optimizer.
    """
    z = engine.local(param).detach()
    dtype = engine.compute_dtype(z.dtype)
    _rename(state, param, rule)
    for name in rule.state_names:
        if name in state and not _is_stored(state, name, rule, dtype):
            put(state, name, values(state, name).to(dtype), param, rule)
    older = {name: engine.local(state.pop(name)).to(dtype) for name in OLDER if name in state}
    wide = z.to(dtype)
    x = older.get("x", wide)
    for name, ahead in (("x", wide), ("y", older.get("y"))):
        gap = ROUNDING if name == "x" and rule.remainder else OLDER[name]
        if name in older and ahead is not None and gap in rule.gaps and rule.movement.state_names:
            put(state, gap, ahead - x, param, rule)
    for name in [gap for gap in GAPS if gap in state and gap not in rule.gaps]:
        state.pop(
            name
        )  # left behind when `acceleration` was switched: it would be out of date when it is switched back
        state.pop(scale_of(name), None)


def _rename(state: dict[str, Any], param: Tensor, rule: Rule) -> None:
    """What rounding took is a distance, and a distance knows what rounding took: whichever the rule keeps."""
    pairs = [("x_gap", ROUNDING), (ROUNDING, "x_gap")] if rule.movement.state_names else []
    for kept, wanted in pairs:
        if kept in state and kept not in rule.gaps and wanted in rule.gaps and wanted not in state:
            put(state, wanted, values(state, kept).to(engine.compute_dtype(param.dtype)), param, rule)
            del state[kept]
            state.pop(scale_of(kept), None)


def _is_stored(state: Mapping[str, Any], name: str, rule: Rule, dtype: torch.dtype) -> bool:
    encoding = rule.encodings[name]
    right = dtype if encoding is FLOAT32 else encoding.dtype
    stored = engine.local(state[name]).dtype == right and (scale_of(name) in state) == encoding.is_blocked
    return stored and (not encoding.is_blocked or engine.local(state[name]).is_contiguous())


def values(state: Mapping[str, Any], name: str) -> Tensor:
    """What a tensor of a state says, however it is stored, of the shape of the parameter (or of its shard)."""
    codes = engine.local(state[name])
    if scale_of(name) in state:
        scales = engine.scales_in_blocks(engine.local(state[scale_of(name)]))
        return engine.out_of_blocks(_SCALED[codes.dtype].decode(engine.in_blocks(codes), scales), codes.shape)
    if name == ROUNDING:
        return REMAINDER.decode(codes, None)
    return codes if codes.dtype == torch.float64 else codes.to(torch.float32)


def put(state: dict[str, Any], name: str, new: Tensor, param: Tensor, rule: Rule) -> None:
    """Store values, of the shape of the parameter (or of its shard), as the rule does."""
    encoding = rule.encodings[name]
    state.pop(scale_of(name), None)
    z = engine.local(param)
    if not encoding.is_blocked:
        codes, _ = encoding.encode(new, None)
        state[name] = engine.like(param, _laid_out_like(z, codes))
        return
    at = dither(0.5, new.device) if encoding.dithers else None
    codes, scales = encoding.encode(engine.in_blocks(new), at)
    state[name] = engine.like(param, engine.out_of_blocks(codes, z.shape).contiguous())
    assert scales is not None
    state[scale_of(name)] = _scales_like(param, scales.view(z.shape[0], -1))


def zeros(name: str, param: Tensor, encoding: Encoding) -> dict[str, Tensor]:
    """A tensor of a state as it begins, with its scales if it has any."""
    z = engine.local(param)
    dtype = engine.compute_dtype(z.dtype) if encoding is FLOAT32 else encoding.dtype
    # the layout of the parameter: they then share one flat order
    state = {name: engine.like(param, torch.zeros_like(z, dtype=dtype, memory_format=torch.preserve_format))}
    if encoding.is_blocked:
        shape = (z.shape[0], engine.blocks_per_row(z.shape))
        state[scale_of(name)] = _scales_like(param, torch.zeros(shape, dtype=torch.float32, device=z.device))
    return state


def scale_shape(param: Tensor) -> tuple[int, int]:
    """Of the scales of a whole parameter."""
    return param.shape[0], -(-engine.row_length(param.shape) // BLOCK)


def _scales_like(param: Tensor, scales: Tensor) -> Tensor:
    return engine.like(param, scales, scale_shape(param))


def _laid_out_like(z: Tensor, tensor: Tensor) -> Tensor:
    return tensor if tensor.stride() == z.stride() else torch.empty_like(z, dtype=tensor.dtype).copy_(tensor)
