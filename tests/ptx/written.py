"""Kernels written by hand, as short as what they show."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .live import Live
from .machine import Machine
from .program import Program

TEXT = """
.visible .entry written(
{parameters}
)
.reqntid {threads}
{{
{loads}
mov.u32 %thread, %tid.x;
mad.wide.u32 %at, %thread, 4, %base0;
{body}
ret;
}}
"""


def kernel(body: str, parameters: int, threads: int) -> str:
    """Its parameters are addresses, `%base0` and so on; in the first each thread has a place of 4 bytes, `%at`."""
    names = [f"parameter_{k}" for k in range(parameters)]
    listed = ",\n".join(f".param .u64 {name}" for name in names)
    loads = "\n".join(f"ld.param.b64 %base{k}, [{name}];" for k, name in enumerate(names))
    return TEXT.format(parameters=listed, threads=threads, loads=loads, body=body)


def run(
    body: str,
    *tensors: Tensor,
    blocks: Sequence[int] = (0,),
    threads: int = 64,
    shared: int = 0,
    machine: Machine | None = None,
) -> None:
    """Launch a kernel on tensors, which alone are live."""
    program = Program(kernel(body, len(tensors), threads), shared)
    live = Live((f"tensor {k}", tensor) for k, tensor in enumerate(tensors))
    order = [(block, 0, 0) for block in blocks]
    addresses = [tensor.data_ptr() for tensor in tensors]
    (machine or Machine()).launch(program, addresses, live, order, (len(order), 1, 1))
