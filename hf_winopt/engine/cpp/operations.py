"""How the operations of a pass are written in C++, with the vectors of `vectors.h`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.fx import Node

aten = torch.ops.aten

TYPES = {
    torch.float32: "float",
    torch.float16: "at::Half",
    torch.bfloat16: "at::BFloat16",
    torch.int8: "int8_t",
    torch.uint8: "uint8_t",
}

EXPRESSIONS: dict[Any, str] = {
    aten.mul.Tensor: "{} * {}",
    aten.add.Tensor: "{} + {}",
    aten.sub.Tensor: "{} - {}",
    aten.div.Tensor: "{} / {}",
    aten.reciprocal.default: "V(1) / {}",
    aten.abs.default: "{}.abs()",
    aten.neg.default: "{}.neg()",
    aten.floor.default: "{}.floor()",
    aten.copysign.Tensor: "copysign({}, {})",
    aten.maximum.default: "at_least({}, {})",
    aten.where.self: "where({}, {}, {})",
}

COMPARISONS: dict[Any, str] = {
    aten.lt.Scalar: "lt({0}, {1})",
    aten.gt.Scalar: "lt({1}, {0})",
    aten.gt.Tensor: "lt({1}, {0})",
    aten.ge.Scalar: "ge({0}, {1})",
    aten.eq.Scalar: "eq({0}, {1})",
}

FRAME = """\
#include "vectors.h"

constexpr int BLOCK = {elements}, VECTORS = BLOCK / WIDTH;
constexpr int64_t CHUNK = {chunk};

extern "C" const int results = {results};

extern "C" void run(void* const* tensors, double* sums, int64_t blocks, int threads) {{
  {once}
  const int64_t chunks = (blocks + CHUNK - 1) / CHUNK;
  #pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {{
    double* const found = sums + results * chunk;
    const int64_t end = chunk + 1 < chunks ? CHUNK * (chunk + 1) : blocks;
    for (int64_t b = CHUNK * chunk; b < end; ++b) {{
      {block}
    }}
  }}
}}
"""
"""The whole of a source."""


def operands(node: Node) -> tuple[Any, ...]:
    """What an operation is given: nodes and numbers."""
    return node.args


def rough_roots(nodes: Iterable[Node]) -> Iterator[tuple[Node, tuple[Node, int]]]:
    """Roots of roots that are only rounded down, with what they are of and how many; 0 of those in between.

    They say between which two codes a value lies. Which of the two it becomes is decided by its distance to both, and
    at a border either says the same: a rough root is enough.
    """
    for node in nodes:
        if node.target is aten.floor.default and operands(node)[0].target is aten.mul.Tensor:
            chain, value = [], operands(operands(node)[0])[0]
            while value.target is aten.sqrt.default and len(value.users) == 1:
                chain.append(value)
                value = operands(value)[0]
            if len(chain) > 1:
                yield chain[0], (value, len(chain))
                yield from ((between, (value, 0)) for between in chain[1:])
