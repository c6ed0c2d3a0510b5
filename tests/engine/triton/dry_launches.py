"""Launch steps up to the launch itself, no GPU needed, and print as JSON how many kernels each was new to.

    python -m tests.engine.triton.dry_launches

A program of its own, since within the tests the kernels belong to the interpreter. From step to step the learning rate
changes, and which parameters have gradients.
"""

from __future__ import annotations

import json
import sys

import torch

from benchmarks.dry_launch import launched
from hf_winopt import create_optimizer


def main() -> None:
    found = {}
    for name in ("adamw_win", "adan_agr", "lamb_win2", "sgd_win", "adal"):
        params = [torch.nn.Parameter(torch.ones(3 + i % 20, 5)) for i in range(64)]
        optimizer = create_optimizer(name, params, backend="triton", weight_decay=0.1, max_grad_norm=1.0)
        known: set[str] = set()
        found[name] = []
        for t in range(12):
            optimizer.param_groups[0]["lr"] = 1e-3 * t
            for p in params[t % 3 :]:
                p.grad = torch.ones_like(p)
            kernels = {kernel.hash for kernel in launched(optimizer.step)}
            found[name].append(len(kernels - known))
            known |= kernels
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
