"""Steps of the Triton engine on a machine without a GPU: everything up to the launches, which are left out.

Triton compiles for a Hopper GPU that is not there; parameters lie on the CPU and are not changed. Must be imported
before the kernels are: within the same process Triton's interpreter and its compiler exclude each other.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ.pop("TRITON_INTERPRET", None)

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from hf_winopt.engine.triton import batch  # noqa: F401  what it imports are the kernels

TARGET = GPUTarget("cuda", 90, 32)


class AbsentHopper:
    """What Triton asks of a driver before it launches."""

    def get_current_target(self) -> GPUTarget:
        return TARGET

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int | None = None) -> int:
        return 0


triton.runtime.driver.set_active(AbsentHopper())
os.environ["TRITON_INTERPRET"] = "1"  # from here on, and for dispatch alone: parameters on the CPU will do


def launched(step: Callable[[], Any]) -> list[Any]:
    """The compiled kernels that `step` would launch, in order; `.asm["ptx"]` is their machine code."""
    kernels: list[Any] = []
    theirs = JITFunction.__getitem__

    def compile_only(self: Any, grid: Any) -> Callable[..., None]:
        return lambda *args, **kwargs: kernels.append(self.run(*args, grid=grid, warmup=True, **kwargs))

    JITFunction.__getitem__ = compile_only
    try:
        step()
    finally:
        JITFunction.__getitem__ = theirs
    return kernels
