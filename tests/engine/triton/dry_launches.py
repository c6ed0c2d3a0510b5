"""Launch every step through Triton's compiler and argument binder, up to the launch itself; no GPU is needed.

    python -m tests.engine.triton.dry_launches

Prints as JSON, for each optimizer, how many compilations its kernels took in the first two steps and in ten more with
another learning rate, other gradients and other lengths of time.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

os.environ.pop("TRITON_INTERPRET", None)

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from hf_winopt import create_optimizer
from hf_winopt.engine.triton import coefficients, kernels

os.environ["TRITON_INTERPRET"] = "1"  # from here on, for dispatch: parameters on the CPU will do
KERNELS = (kernels.squares, kernels.abs_sums, kernels.step, coefficients.coefficients)


class AbsentHopper:
    """What Triton asks of a driver before it launches."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int | None = None) -> int:
        return 0


def compilations() -> int:
    return sum(len(cache[0]) for kernel in KERNELS for cache in kernel.device_caches.values())


def main() -> None:
    triton.runtime.driver.set_active(AbsentHopper())
    launch = JITFunction.run
    JITFunction.__getitem__ = lambda self, grid: lambda *a, **k: launch(self, *a, grid=grid, warmup=True, **k)
    found: dict[str, Any] = {}
    for name in sys.argv[1:] or ("adamw_win", "adan_agr", "lamb_win2", "sgd_win", "adal"):
        params = [torch.nn.Parameter(torch.ones(3 + i % 20, 5)) for i in range(64)]
        optimizer = create_optimizer(name, params, backend="triton", weight_decay=0.1, max_grad_norm=1.0)
        counts = []
        for t in range(12):
            optimizer.param_groups[0]["lr"] = 1e-3 * t
            for p in params[t % 3 :]:
                p.grad = torch.ones_like(p)
            optimizer.step()
            counts.append(compilations())
        found[name] = counts
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
