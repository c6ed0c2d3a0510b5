"""A device of Triton's whose machine code is PTX: it compiles as for an NVIDIA GPU, and launches on this processor."""

from __future__ import annotations

import os
import random
import struct
import sys
from types import SimpleNamespace
from typing import Any

import triton
from torch import Tensor
from triton.backends import Backend, backends
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import CUDABackend

from .live import Live, held_by_callers
from .machine import Block, Machine, folder
from .program import Program

TARGET = "HF_WINOPT_PTX_TARGET"
"""The environment variable that names another GPU than a Hopper: 80 for an Ampere, 100 for a Blackwell."""

SCALARS = {"fp32": "f", "f32": "f", "fp64": "d", "f64": "d"}


class PTXBackend(CUDABackend):
    """Stops where ptxas would begin."""

    def __init__(self, target: GPUTarget) -> None:
        super().__init__(target)
        self.binary_ext = "ptx"

    def add_stages(self, stages: dict[str, Any], *others: Any) -> None:
        super().add_stages(stages, *others)
        del stages["cubin"]


class Launcher:
    """What Triton calls to launch one kernel."""

    def __init__(self, source: Any, metadata: Any) -> None:
        self._kinds = dict(source.signature)
        self._constants = source.constants

    def __call__(self, x: int, y: int, z: int, stream: int, program: Program, *others: Any) -> None:
        values = others[4:]  # after Triton's own data and hooks
        taken = {name: value for name, value in zip(self._kinds, values) if self._is_passed(name)}
        tensors = [(name, value) for name, value in taken.items() if isinstance(value, Tensor)]
        live = Live([*tensors, *held_by_callers(sys._getframe(1))])
        arguments = [_bits(value, self._kinds[name]) for name, value in taken.items()]
        triton.runtime.driver.active.run(program, arguments, live, (x, y, z))

    def _is_passed(self, name: str) -> bool:
        """What is constant at compile time, and 1 and None, are no parameters."""
        return self._kinds[name] != "constexpr" and name not in self._constants


def _bits(value: Any, kind: str) -> int:
    if isinstance(value, Tensor):
        return value.data_ptr()
    if kind in SCALARS:
        return int.from_bytes(struct.pack(f"<{SCALARS[kind]}", value), "little")
    return int(value) % (1 << 64)


class Device:
    """What Triton asks of a driver; and the machine on which launches run.

    Args:
        architecture: of the GPU that is compiled for.
    """

    launcher_cls = Launcher

    def __init__(self, architecture: int) -> None:
        self.target = GPUTarget("cuda", architecture, 32)
        self.utils = SimpleNamespace(
            load_binary=self._load,
            unload_module=lambda module: None,
            get_device_properties=lambda device: {"max_shared_mem": 48 << 10},
        )
        self.launches = 0
        self._machine, self._chance = Machine(), random.Random(0)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int | None = None) -> int:
        return 0

    def _load(self, name: str, text: bytes, shared: int, device: int) -> tuple[Any, ...]:
        program = Program(text.decode(), shared)
        most_threads = (1024,) if tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 4) else ()
        return (program, program, 0, 0, *most_threads)

    def run(self, program: Program, arguments: list[int], live: Live, grid: Block) -> None:
        """Run all blocks of a launch; in order or in none, by chance, so that nothing can depend on it."""
        scratch = [0] * (len(program.kernel.parameters) - len(arguments))  # of which our kernels ask for none
        x, y, z = grid
        blocks = [(i, j, k) for k in range(z) for j in range(y) for i in range(x)]
        if self._chance.random() < 0.5:
            self._chance.shuffle(blocks)
        self.launches += 1
        self._machine.launch(program, [*arguments, *scratch], live, blocks, grid)


def install() -> Device:
    """Have Triton compile for this device, and launch on it, from now on.

    Must come before the kernels are imported: in one process Triton either compiles or interprets.
    """
    os.environ["TRITON_CACHE_DIR"] = str(folder() / "triton")  # what is there has no machine code for a GPU
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "0")  # each launch says so itself; else Triton 3.9 remarks on it
    backends["nvidia"] = Backend(compiler=PTXBackend, driver=backends["nvidia"].driver)
    device = Device(int(os.environ.get(TARGET, "90")))
    triton.runtime.driver.set_active(device)
    return device
