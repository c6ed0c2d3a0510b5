"""How far training bf16 parameters strays from training float32 ones: every family, and torch's AdamW.

    python -m benchmarks.bf16_params --json benchmarks/results/bf16_params.json

A two-layer regression on a noisy teacher, full batch, so that nothing but rounding separates two runs of a pair.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hf_winopt import AdamW, create_optimizer

Make = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]


def _of(name: str, **options: Any) -> Make:
    return lambda params: create_optimizer(name, params, lr=RATES.get(name, 1e-3), **options)


RATES = {"adan": 5e-3, "lamb": 1e-2, "sgd_win": 1e-1, "adal": 1e-3}
"""Where it is not AdamW's."""

OPTIMIZERS: dict[str, Make] = {
    **{name: _of(name) for name in ("adamw_win", "adamw_agr", "adam_l2", "lamb", "sgd_win", "adan", "adal")},
    "AdamW": lambda params: AdamW(params, lr=1e-3),
    "AdamW, keep_rounding=False": lambda params: AdamW(params, lr=1e-3, keep_rounding=False),
    "torch AdamW": lambda params: torch.optim.AdamW(params, lr=1e-3),
}


def final_loss(make: Make, dtype: torch.dtype, seed: int, steps: int) -> float:
    """The loss after training from the same start on the same data, parameters stored as `dtype`."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    inputs, teacher = randn(2048, 32), (randn(32, 16), randn(16, 1))
    targets = torch.tanh(inputs @ teacher[0] / 4) @ teacher[1] + 0.5 * randn(2048, 1)
    start = [randn(32, 32) / 6, torch.zeros(32), randn(32, 1) / 6, torch.zeros(1)]
    params = [torch.nn.Parameter(p.to(dtype)) for p in start]
    optimizer = make(params)

    def loss() -> Tensor:
        w1, b1, w2, b2 = (p.float() for p in params)
        return torch.nn.functional.mse_loss(torch.tanh(inputs @ w1 + b1) @ w2 + b2, targets)

    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * (1 - step / steps)
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    return loss().item()


def run(seeds: int, steps: int) -> list[dict[str, Any]]:
    """One row per optimizer: final losses per seed, in float32 and in bf16."""
    return [
        {"optimizer": name, **{
            str(dtype).removeprefix("torch."): [final_loss(make, dtype, seed, steps) for seed in range(seeds)]
            for dtype in (torch.float32, torch.bfloat16)
        }}
        for name, make in OPTIMIZERS.items()
    ]  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """Final losses, one for each seed, as Markdown."""
    lines = ["| optimizer | float32 parameters | bf16 parameters |", "|---|---|---|"]
    for row in rows:
        losses = (" ".join(f"{loss:.4f}" for loss in row[key]) for key in ("float32", "bfloat16"))
        lines.append(f"| {row['optimizer']} | {' | '.join(losses)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    rows = run(args.seeds, args.steps)
    print(table(rows))
    if args.json:
        result = {"steps": args.steps, "torch": torch.__version__, "final_loss": rows}
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
