"""Time that the host spends on a step of the Triton engine, all but the launches themselves; no GPU is needed.

    python -m benchmarks.host_time --json benchmarks/results/host_time.json

200 parameters in two groups; each step has new gradients and another learning rate. Triton compiles for a GPU that is
not there, and looks its kernels up as it would: what is missing is handing them to the driver, and the step's one copy
to the device is one within the host's memory. torch's fused AdamW stands beside them, its two calls of kernels (the
step counts, the update) left out.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from triton.runtime.jit import JITFunction

import hf_winopt
from benchmarks import dry_launch  # noqa: F401  sets the GPU that is not there
from hf_winopt.bench.machine import machine
from hf_winopt.bench.results import save

NAMES: dict[str, dict[str, Any]] = {
    "adamw_win": {},
    "adan": {},
    "adamw_agr": {},
    "lamb_win": {"weight_decay": 0.1},
    "adamw_win, max_grad_norm": {"max_grad_norm": 1.0},
}

Groups = list[dict[str, Any]]


def ours(name: str) -> Callable[[Groups], torch.optim.Optimizer]:
    return lambda groups: hf_winopt.create_optimizer(name.split(",")[0], groups, backend="triton", **NAMES[name])


def torchs(groups: Groups) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, fused=True)


def launch_nothing() -> None:
    """Leave out the launches of both: Triton's stop before the driver, torch's kernels are not called."""
    launch = JITFunction.run
    JITFunction.__getitem__ = lambda self, grid: lambda *a, **k: launch(self, *a, grid=grid, warmup=True, **k)
    for kernel in ("_foreach_add_", "_fused_adamw_"):
        setattr(torch, kernel, lambda *args, **kwargs: None)


def measure(name: str, made: Callable[[Groups], torch.optim.Optimizer], steps: int) -> dict[str, Any]:
    """Microseconds of a step: the median and the quartiles."""
    params = [torch.nn.Parameter(torch.ones(8, 4 + i % 3)) for i in range(200)]
    optimizer = made([{"params": params[:120]}, {"params": params[120:]}])
    times = []
    for t in range(steps + 20):
        for p in params:
            p.grad = torch.empty_like(p)
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 / (t + 1)
        start = time.perf_counter()
        optimizer.step()
        times.append(1e6 * (time.perf_counter() - start))
    low, median, high = statistics.quantiles(times[20:], n=4)
    return {"name": name, "tensors": len(params), "host_us": median, "quartiles_us": [low, high]}


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| optimizer | microseconds for 200 parameters | quartiles |", "|---|---|---|"]
    for row in rows:
        low, high = row["quartiles_us"]
        lines.append(f"| {row['name']} | {row['host_us']:.0f} | {low:.0f} to {high:.0f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500, help="that are measured (default: 500)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    launch_nothing()
    rows = [measure("torch AdamW fused", torchs, args.steps), *(measure(n, ours(n), args.steps) for n in NAMES)]
    if args.json:
        save(args.json, {"machine": machine(torch.device("cpu")), "rows": rows})
    print(table(rows))


if __name__ == "__main__":
    main()
