"""The bytes that each optimizer's kernels move per parameter, counted in their machine code, beside those computed.

    python -m benchmarks.traffic --json benchmarks/results/traffic.json
    python -m benchmarks.traffic --report benchmarks/results/traffic.json

Needs triton, but no GPU. Counted are the wide loads and stores of one block: every tensor that is read or written there
shows, and one that was read twice, or read and never used, would show too.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import torch

import hf_winopt
from hf_winopt import OPTIMIZERS, create_optimizer
from hf_winopt.bench.results import save
from hf_winopt.engine.triton.table import BLOCK

WIDE = re.compile(r"\b(?:ld|st)\.global\.v(\d)\.b(\d+)")
THREADS = 128
DTYPES = ("float32", "bfloat16")


def moved(ptx: str) -> float:
    """Bytes that a kernel moves for each element of a block that lies inside its parameter."""
    bytes_of_a_thread = sum(int(count) * int(bits) // 8 for count, bits in WIDE.findall(ptx))
    return bytes_of_a_thread * THREADS / BLOCK


def measure(name: str, dtype: torch.dtype) -> dict[str, Any]:
    """One optimizer with weight decay, on a matrix so large that no loop over its blocks is written out in full."""
    from benchmarks.dry_launch import launched  # only here: it takes the kernels from the interpreter

    p = torch.nn.Parameter(torch.ones(4096, 4096, dtype=dtype))
    p.grad = torch.ones_like(p)
    optimizer = create_optimizer(name, [p], weight_decay=0.1, backend="triton")
    kernels = launched(optimizer.step)
    passes = [moved(kernel.asm["ptx"]) for kernel in kernels]
    return {
        "name": name,
        "dtype": str(dtype).removeprefix("torch."),
        "computed": optimizer.bytes_per_param(),
        "counted": sum(passes),
        "passes": [bytes_moved for bytes_moved in passes if bytes_moved],
        "launches": len(kernels),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """A line for each optimizer, with its figures for each type of parameter."""
    dtypes = list(dict.fromkeys(row["dtype"] for row in rows))
    heads = [f"{dtype}: {what}" for dtype in dtypes for what in ("computed", "counted")]
    lines = [f"| optimizer | {' | '.join(heads)} | pass by pass | launches |", "|---" * (len(heads) + 3) + "|"]
    for name in dict.fromkeys(row["name"] for row in rows):
        mine = [row for row in rows if row["name"] == name]
        figures = " | ".join(f"{row['computed']:.0f} | {row['counted']:.0f}" for row in mine)
        passes = " + ".join(f"{bytes_moved:.0f}" for bytes_moved in mine[0]["passes"])
        lines.append(f"| {name} | {figures} | {passes} | {mine[0]['launches']} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=DTYPES, help="of parameters (default: all)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--report", type=Path, metavar="JSON", help="print the table of earlier figures, count nothing")
    args = parser.parse_args()
    if args.report:
        print(table(json.loads(args.report.read_text())["rows"]))
        return
    import triton

    rows = [measure(name, getattr(torch, dtype)) for name in OPTIMIZERS for dtype in args.dtypes]
    if args.json:
        versions = {"torch": torch.__version__, "triton": triton.__version__, "hf_winopt": hf_winopt.__version__}
        save(args.json, {"target": "sm_90", "versions": versions, "rows": rows})
    print(table(rows))


if __name__ == "__main__":
    main()
