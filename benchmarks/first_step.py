"""Seconds of the first step with `backend="compile"` on the shapes of BERT-base, and what torch itself needs of them.

    python -m benchmarks.first_step --json benchmarks/results/first_step.json

Each figure is of a new process: cold without any compiled code, warm with what the cold left on disk. The last line is
`torch.compile(lambda x: x + 1)` called once, to compare with.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import hf_winopt
from hf_winopt.bench.machine import machine
from hf_winopt.bench.results import save
from hf_winopt.bench.shapes import shapes_of

NAMES = ("adamw_win", "adan", "adamw_agr", "lamb_win", "adan_win2_agr")
TORCH = "torch.compile of x + 1"


def first_step(name: str) -> float:
    """Seconds of the first step in this process."""
    if name == TORCH:
        tensor = torch.ones(1 << 20)
        compiled = torch.compile(lambda x: x + 1)
        start = time.perf_counter()
        compiled(tensor)
        return time.perf_counter() - start
    params = [torch.nn.Parameter(torch.ones(shape)) for shape in shapes_of("bert-base")]
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer = hf_winopt.create_optimizer(name, params, weight_decay=0.01, backend="compile")
    start = time.perf_counter()
    optimizer.step()
    return time.perf_counter() - start


def measure(name: str, warm: int) -> dict[str, Any]:
    """Cold once, then warm so many times."""
    with tempfile.TemporaryDirectory() as cache:
        # torch keeps headers where temporary files are, whatever its cache
        env = {**os.environ, "TMPDIR": cache, "TORCHINDUCTOR_CACHE_DIR": cache, "HF_WINOPT_CACHE": cache}
        command = [sys.executable, "-m", "benchmarks.first_step", "--one", name]
        seconds = [
            json.loads(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout)
            for _ in range(1 + warm)
        ]
    return {"name": name, "cold_s": seconds[0], "warm_s": seconds[1:]}


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| first step of | cold | warm |", "|---|---|---|"]
    for row in rows:
        lines.append(
            f"| {row['name']} | {row['cold_s']:.1f} s | {min(row['warm_s']):.1f} to {max(row['warm_s']):.1f} s |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", metavar="NAME", help="measure this one, in this process, once")
    parser.add_argument("--warm", type=int, default=3, help="processes with a warm cache (default: 3)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(first_step(args.one)))
        return
    rows = [measure(name, args.warm) for name in (*NAMES, TORCH)]
    if args.json:
        save(args.json, {"machine": machine(torch.device("cpu")), "rows": rows})
    print(table(rows))


if __name__ == "__main__":
    main()
