"""Encodings that others use, or that were tried, each with the fault that test_traps.py finds in it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hf_winopt.rules.encodings import U8, Encoding


def scaled(values: Tensor) -> tuple[Tensor, Tensor]:
    a = values.abs().amax(-1, keepdim=True)
    return values.abs() / torch.where(a == 0, 1.0, a), a


def _linear(values: Tensor, r: object) -> tuple[Tensor, Tensor]:
    y, a = scaled(values)
    return (y * 255).round().to(torch.uint8), a


LINEAR = Encoding(torch.uint8, True, False, _linear, lambda codes, a: codes.float() / 255 * a)


def _dynamic_map() -> Tensor:
    """256 values from 0 to 1 in seven decades, each with twice as many as the one below it."""
    values = [0.0, 1.0]
    for i in range(7):
        edges = torch.linspace(0.1, 1, 2 ** (i + 1) + 1)
        values += (10.0 ** (i - 6) * (edges[1:] + edges[:-1]) / 2).tolist()
    return torch.tensor(sorted(values))


DYNAMIC_MAP = _dynamic_map()


def _dynamic(values: Tensor, r: object) -> tuple[Tensor, Tensor]:
    y, a = scaled(values)
    middles = (DYNAMIC_MAP[1:] + DYNAMIC_MAP[:-1]) / 2
    return torch.bucketize(y, middles).to(torch.uint8), a


DYNAMIC = Encoding(torch.uint8, True, False, _dynamic, lambda codes, a: DYNAMIC_MAP[codes.long()] * a)


def _square_root(values: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """Dithered in the value, and never 0: all as ours, but for the root."""
    y, a = scaled(values)
    k = (y.sqrt() * 255 * (1 - 2.0**-22)).floor()
    low, high = (k / 255).square(), ((k + 1) / 255).square()
    k = k + (y - low > r * (high - low))
    return k.maximum((a > 0).float()).to(torch.uint8), a


SQUARE_ROOT = Encoding(torch.uint8, True, True, _square_root, lambda codes, a: (codes.float() / 255).square() * a)


def _undithered(values: Tensor, r: object) -> tuple[Tensor, Tensor | None]:
    y, a = scaled(values)
    k = (y.sqrt().sqrt().sqrt() * 255 + 0.5).floor()
    return k.maximum((a > 0).float()).to(torch.uint8), a


UNDITHERED = Encoding(torch.uint8, True, False, _undithered, U8.decode)


def _one_scale(values: Tensor, r: Tensor) -> tuple[Tensor, Tensor | None]:
    codes, a = U8.encode(values.view(1, -1), r.repeat(values.shape[0]))
    assert a is not None
    return codes.view(values.shape), a.expand(values.shape[0], 1)


def _deaf(values: Tensor, r: Tensor) -> tuple[Tensor, Tensor | None]:
    return U8.encode(values.nan_to_num(0.0), r)


ONE_SCALE = U8._replace(encode=_one_scale)
DEAF = U8._replace(encode=_deaf)


def half_scaled(encoding: Encoding) -> Encoding:
    def encode(values: Tensor, r: Any) -> tuple[Tensor, Tensor | None]:
        codes, a = encoding.encode(values, r)
        assert a is not None
        return codes, a.half().float()

    return encoding._replace(encode=encode)
