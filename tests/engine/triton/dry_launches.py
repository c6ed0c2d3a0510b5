"""Launch steps up to the launch itself, no GPU needed, and print as JSON how many kernels each was new to.

    python -m tests.engine.triton.dry_launches

A program of its own, since within the tests the kernels belong to the interpreter. From step to step the learning rate
changes, and which parameters have gradients; then others are stepped, by another optimizer.
"""

from __future__ import annotations

import json
import sys

import torch

from benchmarks.dry_launch import launched
from hf_winopt import create_optimizer


def main() -> None:
    found = {}
    for name, options in (
        ("adamw_win", {}), ("adan_agr", {}), ("lamb_win2", {}), ("sgd_win", {}), ("adal", {}),
        ("adamw_win", {"max_grad_norm": 1.0}), ("lamb_win", {"max_grad_norm": 1.0}),
    ):  # fmt: skip
        known: set[str] = set()
        new = found[" ".join([name, *options])] = []
        for lengths in SETS:
            params = [torch.nn.Parameter(torch.ones(length, 5)) for length in lengths]
            params += [torch.nn.Parameter(p.detach().bfloat16()) for p in params] if options else []
            optimizer = create_optimizer(name, params, backend="triton", weight_decay=0.1, **options)
            for t in range(4):
                optimizer.param_groups[0]["lr"] = 1e-3 * t
                for p in params[t % 3 :]:
                    p.grad = torch.ones_like(p)
                kernels = {kernel.hash for kernel in launched(optimizer.step)}
                new.append(len(kernels - known))
                known |= kernels
    json.dump(found, sys.stdout)


SETS = ([3 + i % 20 for i in range(64)], [1000], [1, 900, 7000], [5000, 20], [40, 2500, 60, 11])
"""First dimensions of parameters: few and many, of one span and of several, in all numbers modulo 4."""


if __name__ == "__main__":
    main()
