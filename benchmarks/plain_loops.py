"""What one would write by hand, AdamW-Win and Adan as a loop over the parameters, beside the same optimizers of ours.

    python -m benchmarks.plain_loops --json benchmarks/results/plain_loops.json
    python -m benchmarks.plain_loops --report benchmarks/results/plain_loops.json

The loops are the formulas of docs/math.md line by line. They step the shapes of a model in turn with ours, in rounds; a
ratio is the median over rounds of ours to the loop within a round. Measure on an idle machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hf_winopt import bench, create_optimizer
from hf_winopt.bench.comparison import OPTIONS, on, parameters
from hf_winopt.bench.machine import machine
from hf_winopt.bench.table import heading, markdown, milliseconds
from hf_winopt.bench.timing import interleaved, ratios, summary


class PlainWin(torch.optim.Optimizer):
    """AdamW accelerated by Win."""

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        reckless: float = 2.0,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "weight_decay": weight_decay, "betas": betas, "eps": eps, "reckless": reckless}
        )

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            (b1, b2), lr, decay, r = group["betas"], group["lr"], group["weight_decay"], group["reckless"]
            for p in group["params"]:
                g, state = p.grad, self.state[p]
                if not state:
                    state["t"], state["x"] = 0, p.clone()
                    state["m"], state["v"] = torch.zeros_like(p), torch.zeros_like(p)
                m, v, x = state["m"], state["v"], state["x"]
                state["t"] += 1
                t = state["t"]
                m.mul_(b1).add_(g, alpha=1 - b1)
                v.mul_(b2).addcmul_(g, g, value=1 - b2)
                denominator = (v / (1 - b2**t)).sqrt().add_(group["eps"])
                u = m / (1 - b1**t) / denominator
                x.add_(u, alpha=-lr).div_(1 + lr * decay)
                p.add_(u, alpha=-r * lr).add_(x, alpha=r).div_(1 + r + r * lr * decay)


class PlainAdan(torch.optim.Optimizer):
    """Adan with proximal weight decay."""

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        betas: tuple[float, float, float] = (0.98, 0.92, 0.99),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            (b1, b2, b3), lr = group["betas"], group["lr"]
            for p in group["params"]:
                g, state = p.grad, self.state[p]
                if not state:
                    state["t"], state["previous"] = 0, g.clone()
                    state["m"], state["d"], state["n"] = (torch.zeros_like(p) for _ in range(3))
                m, d, n = state["m"], state["d"], state["n"]
                state["t"] += 1
                t = state["t"]
                difference = g - state["previous"]
                m.mul_(b1).add_(g, alpha=1 - b1)
                d.mul_(b2).add_(difference, alpha=1 - b2)
                lookahead = g + b2 * difference
                n.mul_(b3).addcmul_(lookahead, lookahead, value=1 - b3)
                denominator = (n / (1 - b3**t)).sqrt().add_(group["eps"])
                u = (m / (1 - b1**t) + b2 * d / (1 - b2**t)) / denominator
                p.add_(u, alpha=-lr).div_(1 + lr * group["weight_decay"])
                state["previous"].copy_(g)


LOOPS = {"adamw_win": PlainWin, "adan": PlainAdan}


def run(plan: bench.Plan) -> bench.Result:
    """Measure every name of the plan by each of its backends, beside its loop."""
    with on(plan.device):
        params = parameters(plan)
        rows = [_row(name, backend, params, plan) for name in plan.names for backend in plan.backends]
    return {
        "shapes": plan.model,
        "dtype": plan.dtype_name,
        "tensors": len(params),
        "elements": plan.elements,
        "rounds": plan.rounds,
        "machine": machine(plan.device),
        "rows": rows,
    }


def _row(name: str, backend: str, params: list[Tensor], plan: bench.Plan) -> bench.Row:
    loop = LOOPS[name](params, **OPTIONS)
    ours = create_optimizer(name, params, backend=backend, **OPTIONS)
    samples = interleaved({"loop": loop.step, "ours": ours.step}, plan.rounds, plan.device)
    return {
        "name": name,
        "backend": backend,
        **summary(samples["ours"]),
        "loop_ms": summary(samples["loop"])["median_ms"],
        "ratio_loop": ratios(samples["ours"], samples["loop"])[1],
    }


def report(result: bench.Result) -> str:
    """The times as Markdown."""
    rows = [
        [
            row["name"],
            row["backend"],
            milliseconds(row["loop_ms"]),
            milliseconds(row["median_ms"]),
            f"{row['ratio_loop']:.2f}",
        ]
        for row in result["rows"]
    ]
    heads = ["optimizer", "backend", "loop ms", "ours ms", "ours / loop"]
    return f"{heading(result)}\n\n{markdown(heads, rows, aligned=False)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", nargs="+", choices=LOOPS, default=list(LOOPS), help="optimizers (default: both)")
    parser.add_argument("--shapes", default="bert-base", help="as of `hf-winopt bench` (default: bert-base)")
    parser.add_argument("--backends", nargs="+", default=["auto"], help="ours (default: auto, what suits the device)")
    parser.add_argument("--device", help="where (default: the accelerator, else the CPU)")
    parser.add_argument("--rounds", type=int, default=9, help="times that each is timed (default: 9)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    parser.add_argument("--report", type=Path, metavar="JSON", help="print the table of earlier figures")
    args = parser.parse_args()
    if args.report:
        print(report(bench.load(args.report)))
        return
    options = {"backends": args.backends, "device": args.device, "rounds": args.rounds}
    plan = bench.make_plan(args.names, args.shapes, **options)
    bench.check_memory(plan)
    result = run(plan)
    if args.json:
        bench.save(args.json, result)
    print(report(result))


if __name__ == "__main__":
    main()
