"""Time of `Win(base)` beside the base's own step on the shapes of BERT-base, and torch's fused AdamW in one process.

    python -m benchmarks.around_cost --json benchmarks/results/around_cost.json
    python -m benchmarks.around_cost --report benchmarks/results/around_cost.json

All steps take turns in each round, on the same parameters and gradients; a ratio is the median over rounds of the ratio
within a round. Measure on an idle machine.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from hf_winopt import Win
from hf_winopt.bench import load, save
from hf_winopt.bench.shapes import bert_base
from hf_winopt.bench.table import markdown
from hf_winopt.bench.timing import Sample, interleaved
from hf_winopt.integrations.results import environment

FUSED = "AdamW fused"
BASES: dict[str, Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]] = {
    FUSED: lambda params: torch.optim.AdamW(params, lr=1e-4, fused=True),
    "SGD fused": lambda params: torch.optim.SGD(params, lr=1e-4, momentum=0.9, fused=True),
    "RMSprop": lambda params: torch.optim.RMSprop(params, lr=1e-4),
}
FORMS = [(acceleration, state) for acceleration in ("win", "win2") for state in ("float32", "compact")]


def measure(rounds: int, backend: str) -> dict[str, Any]:
    """Times of each base, and of `Win` around it in each form, in milliseconds."""
    params = [torch.nn.Parameter(torch.randn(shape)) for shape in bert_base()]
    for p in params:
        p.grad = torch.randn_like(p)
    rows = []
    for name, make in BASES.items():
        for acceleration, state in FORMS:
            steps = {"fused": BASES[FUSED](params).step, "base": make(params).step}
            steps["win"] = Win(make(params), acceleration, state=state, backend=backend).step
            samples = interleaved(steps, rounds, torch.device("cpu"))
            rows.append({"base": name, "acceleration": acceleration, "state": state, **_summary(samples)})
            print(rows[-1], flush=True)
    return {
        "shapes": "bert-base",
        "elements": sum(p.numel() for p in params),
        "backend": backend,
        "rounds": rounds,
        "rows": rows,
        **environment(),
    }


def _summary(samples: dict[str, list[Sample]]) -> dict[str, float]:
    rounds = list(zip(samples["fused"], samples["base"], samples["win"]))
    return {
        **{f"{name}_ms": statistics.median(each.ms for each in mine) for name, mine in samples.items()},
        "added": statistics.median((win.ms - base.ms) / fused.ms for fused, base, win in rounds),
    }


def table(result: dict[str, Any]) -> str:
    """One row for each base and form."""
    heads = ("base", "around it", "state", "base, ms", "Win, ms", "added, x fused AdamW")
    rows = [
        (
            row["base"],
            row["acceleration"],
            row["state"],
            f"{row['base_ms']:.0f}",
            f"{row['win_ms']:.0f}",
            f"{row['added']:.2f}",
        )
        for row in result["rows"]
    ]
    return markdown(heads, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="rounds of each base and form (default: 9)")
    parser.add_argument("--backend", default="compile", help="what steps the two passes (default: compile)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--report", type=Path, metavar="JSON", help="print the table of earlier figures")
    arguments = parser.parse_args()
    result = load(arguments.report) if arguments.report else measure(arguments.rounds, arguments.backend)
    if arguments.json:
        save(arguments.json, result)
    print(table(result))


if __name__ == "__main__":
    main()
