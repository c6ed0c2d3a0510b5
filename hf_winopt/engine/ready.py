"""The programs that a step asks for, compiled at its first time: on a CPU ahead of time, elsewhere as torch does."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch
from torch import Tensor

from .beside import compiled_beside
from .machine_code import ahead_of_time
from .programs import Program, Request, Run

_ready: dict[Request, Program] = {}
_one_at_a_time = threading.Lock()


def programs(requests: Sequence[Request]) -> list[Program]:
    """One for each, in order.

    Raises:
        RuntimeError: one could not be compiled.
    """
    if any(request not in _ready for request in requests):
        with _one_at_a_time:
            missing = [request for request in dict.fromkeys(requests) if request not in _ready]
            with compiled_beside([request for request in missing if _is_for_cpu(request)]):
                _ready.update((request, _program(request)) for request in missing)
    return [_ready[request] for request in requests]


def _is_for_cpu(request: Request) -> bool:
    return request.kind[2].type == "cpu"


def _program(request: Request) -> Program:
    return ahead_of_time(request) if _is_for_cpu(request) else just_in_time(request)


def just_in_time(request: Request) -> Program:
    """The program that `torch.compile` makes in this process."""
    run = Run(request)

    def call(tensors: list[Tensor]) -> list[Tensor]:
        return run(tensors)

    call.__code__ = call.__code__.replace(co_name=f"call_{id(run)}")  # torch counts compilations per code object
    return torch.compile(call, dynamic=True, fullgraph=True, options=run.options() or None)
