"""At which level of state a parameter is kept: it depends on the whole parameter, never on the shard that is here."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from .. import engine
from ..rules import BLOCK, Rule

LEAST = 4096
"""Elements of the smallest parameter that is kept in blocks: what is smaller costs nothing."""

LEAST_IN_A_ROW = 64

HALVES = (torch.bfloat16, torch.float16)


def kept(options: Mapping[str, Any]) -> dict[str, Any]:
    """What a group asks of a rule: `state` and `remainder`, before it is known for which parameter."""
    return {"state": options.get("state", "float32"), "remainder": bool(options.get("keep_rounding", True))}


def rule_for(asked: Rule, param: Tensor) -> Rule:
    """The rule of a group for one of its parameters.

    Parameters of one dimension, small ones and those with short rows, float64, tensors without memory of their own, and
    those laid out otherwise than row by row are kept in float32.
    """
    if is_lazy(param):
        return _narrowed(asked, "float32", False)
    level = asked.state if asked.state == "float32" or fits_blocks(param) else "float32"
    rounds = param.dtype in HALVES and _is_plain(param)
    accelerated = asked.acceleration != "none"  # whose float32 distance knows of the rounding
    return _narrowed(asked, level, rounds and (level != "float32" if accelerated else asked.remainder))


@functools.lru_cache(maxsize=1024)
def _narrowed(asked: Rule, level: str, remainder: bool) -> Rule:
    return replace(asked, state=level, remainder=remainder)


def fits_blocks(param: Tensor) -> bool:
    """Whether a parameter, given whole or as a DTensor, is kept in blocks where its group asks for it."""
    if param.ndim < 2 or param.numel() < LEAST or engine.row_length(param.shape) < LEAST_IN_A_ROW:
        return False
    return (
        param.dtype in (torch.float32, *HALVES)
        and _is_plain(param)
        and engine.local(param).is_contiguous()
        and engine.cuts_rows_only(param, BLOCK)
    )


def _is_plain(param: Tensor) -> bool:
    return type(engine.local(param)) in engine.PLAIN
