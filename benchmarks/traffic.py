"""The bytes that each optimizer's kernels move per parameter, counted in their machine code, beside those computed.

    python -m benchmarks.traffic --json benchmarks/results/traffic.json
    python -m benchmarks.traffic --report benchmarks/results/traffic.json

Needs triton, but no GPU. Counted are the loads and stores of one block: every tensor that is read or written there
shows, and one that was read twice, or read and never used, would show too. What is read for a whole parameter is not
counted.
"""

from __future__ import annotations

import argparse
import json
import linecache
import re
from pathlib import Path
from typing import Any

import torch

import hf_winopt
from hf_winopt import OPTIMIZERS, create_optimizer
from hf_winopt.bench.results import save
from hf_winopt.engine.triton.table import BLOCK
from hf_winopt.rules import STATES

WIDE = re.compile(r"\b(?:ld|st)\.global\.v(\d)\.b(\d+)")
NARROW = re.compile(r"(?:@(%p\d+)\s+)?(?:ld|st)\.global\.b32")
FILE = re.compile(r'\.file\s+(\d+)\s+(?:"(.*)"\s+)?"([^"]*)"')
LINE = re.compile(r"\.loc\s+(\d+)\s+(\d+)")
NEVER = re.compile(r"mov\.pred\s+(%p\d+), 0;")
THREADS, WARP = 128, 32
DTYPES = ("float32", "bfloat16")


def moved(ptx: str) -> float:
    """Bytes that a kernel moves for each element of a block that lies inside its parameter.

    That is all that happens between two labels, where something is read or written wide and whatever the mask. Of codes
    of one byte a thread reads four, which is no wider than a number by itself: the line of Python says which is which.
    """
    files = {number: Path(folder or "", name) for number, folder, name in FILE.findall(ptx)}
    never = set(NEVER.findall(ptx))
    bodies = re.split(r"^\$L__BB\w+:", ptx, flags=re.MULTILINE)
    return (
        sum(_in(body, files, never) for body in bodies if re.search(rf"^\s*{WIDE.pattern}", body, re.MULTILINE)) / BLOCK
    )


def _in(body: str, files: dict[str, Path], never: set[str]) -> int:
    """Bytes that the threads of a program move in a piece of code without branches."""
    total, written = 0, ""
    for line in body.splitlines():
        if place := LINE.search(line):
            file, number = files[place[1]], int(place[2])
            written = linecache.getline(str(file), number) if file.name == "stored.py" else ""
        elif wide := WIDE.search(line):
            total += int(wide[1]) * int(wide[2]) // 8 * THREADS
        elif (narrow := NARROW.search(line)) and written and narrow[1] not in never:
            # all threads of a warp have the same scale
            total += 4 * (THREADS // WARP if "SCALE" in written or "scales" in written else THREADS)
    return total


def measure(name: str, dtype: torch.dtype, state: str) -> dict[str, Any]:
    """One optimizer with weight decay, on a matrix so large that no loop over its blocks is written out in full."""
    from benchmarks.dry_launch import launched  # only here: it takes the kernels from the interpreter

    p = torch.nn.Parameter(torch.ones(4096, 4096, dtype=dtype))
    p.grad = torch.ones_like(p)
    optimizer = create_optimizer(name, [p], weight_decay=0.1, backend="triton", state=state)
    kernels = launched(optimizer.step)
    passes = [moved(kernel.asm["ptx"]) for kernel in kernels]
    return {
        "name": name,
        "dtype": str(dtype).removeprefix("torch."),
        "state": state,
        "computed": optimizer.bytes_per_param(),
        "counted": sum(passes),
        "passes": [bytes_moved for bytes_moved in passes if bytes_moved],
        "launches": len(kernels),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """A line for each optimizer, with its figures for each type of parameter and level of state."""
    kinds = list(dict.fromkeys(map(_kind, rows)))
    heads = [f"{kind}: {what}" for kind in kinds for what in ("computed", "counted")]
    lines = [f"| optimizer | {' | '.join(heads)} | pass by pass | launches |", "|---" * (len(heads) + 3) + "|"]
    for name in dict.fromkeys(row["name"] for row in rows):
        mine = {_kind(row): row for row in rows if row["name"] == name}
        figures = " | ".join(
            f"{_short(mine[kind]['computed'])} | {_short(mine[kind]['counted'])}" if kind in mine else " | "
            for kind in kinds
        )
        first = next(iter(mine.values()))
        lines.append(f"| {name} | {figures} | {' + '.join(map(_short, first['passes']))} | {first['launches']} |")
    return "\n".join(lines)


def _kind(row: dict[str, Any]) -> str:
    state = row.get("state", "float32")
    return row["dtype"] if state == "float32" else f"{row['dtype']}, {state}"


def _short(figure: float) -> str:
    return f"{figure:.2f}".rstrip("0").rstrip(".")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", nargs="+", choices=OPTIMIZERS, default=[*OPTIMIZERS], help="default: all")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=DTYPES, help="of parameters (default: all)")
    parser.add_argument("--states", nargs="+", choices=STATES, default=["float32"], help="levels of state")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--report", type=Path, metavar="JSON", help="print the table of earlier figures, count nothing")
    args = parser.parse_args()
    if args.report:
        print(table(json.loads(args.report.read_text())["rows"]))
        return
    import triton

    kinds = [(getattr(torch, dtype), state) for state in args.states for dtype in args.dtypes]
    rows = [measure(name, *kind) for name in args.names for kind in kinds]
    if args.json:
        versions = {"torch": torch.__version__, "triton": triton.__version__, "hf_winopt": hf_winopt.__version__}
        save(args.json, {"target": "sm_90", "versions": versions, "rows": rows})
    print(table(rows))


if __name__ == "__main__":
    main()
