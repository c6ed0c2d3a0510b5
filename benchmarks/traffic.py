"""The bytes that each optimizer's kernels move per parameter, counted in their machine code, beside those computed.

    python -m benchmarks.traffic [--dtype float32|bfloat16] [--json FILE]

Needs triton, but no GPU. Counted are the wide loads and stores of one block: every tensor that is read or written there
shows, and one that was read twice, or read and never used, would show too.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import torch

from benchmarks.dry_launch import launched
from hf_winopt import OPTIMIZERS, create_optimizer
from hf_winopt.bench.results import save
from hf_winopt.engine.triton.table import BLOCK

WIDE = re.compile(r"\b(?:ld|st)\.global\.v(\d)\.b(\d+)")
THREADS = 128


def moved(ptx: str) -> float:
    """Bytes that a kernel moves for each element of a block that lies inside its parameter."""
    bytes_of_a_thread = sum(int(count) * int(bits) // 8 for count, bits in WIDE.findall(ptx))
    return bytes_of_a_thread * THREADS / BLOCK


def measure(name: str, dtype: torch.dtype) -> dict[str, Any]:
    """One optimizer with weight decay, on a matrix."""
    p = torch.nn.Parameter(torch.ones(64, 64, dtype=dtype))
    p.grad = torch.ones_like(p)
    optimizer = create_optimizer(name, [p], weight_decay=0.1, backend="triton")
    kernels = launched(optimizer.step)
    passes = [moved(kernel.asm["ptx"]) for kernel in kernels]
    return {
        "name": name,
        "computed": optimizer.bytes_per_param(),
        "counted": sum(passes),
        "passes": [bytes_moved for bytes_moved in passes if bytes_moved],
        "launches": len(kernels),
        "state": optimizer.state_bytes() / p.numel(),
    }


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| optimizer | computed | counted | pass by pass | launches |", "|---|---|---|---|---|"]
    for row in rows:
        passes = " + ".join(f"{bytes_moved:.0f}" for bytes_moved in row["passes"])
        lines.append(f"| {row['name']} | {row['computed']:.0f} | {row['counted']:.0f} | {passes} | {row['launches']} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="of parameters")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    rows = [measure(name, getattr(torch, args.dtype)) for name in OPTIMIZERS]
    if args.json:
        save(args.json, {"dtype": args.dtype, "rows": rows})
    print(table(rows))


if __name__ == "__main__":
    main()
