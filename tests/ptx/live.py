"""Which memory a launch may touch: that of the tensors it is given, and of those that whoever launches holds just then.

The addresses in a kernel's tables say nothing about whose they are, so Python is asked: what can be reached from the
variables of the functions of hf_winopt that lead to the launch, up to the optimizer that steps, is live. Nothing else
is: not what the optimizer held a step ago, nor what else lies in the storage of a tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import FrameType
from typing import Any

import numpy as np
from torch import Tensor
from torch.optim import Optimizer

RANGE = np.dtype([("begin", np.uint64), ("end", np.uint64), ("histories", np.int64)])
"""`range` in machine.c: addresses, and where the histories of its bytes begin."""


class Live:
    """The memory of tensors that have names. One that is a part of another adds nothing."""

    def __init__(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        self._names: dict[tuple[int, int], str] = {}
        for name, tensor in tensors:
            if tensor.numel():
                self._names.setdefault(_extent(tensor), name)
        ranges: list[tuple[int, int, int]] = []
        self.bytes = 0
        for begin, end in sorted(self._names, key=lambda extent: (extent[0], -extent[1])):
            last_begin, last_end, histories = ranges[-1] if ranges else (0, 0, 0)
            if end <= last_end:
                continue
            # a byte that two tensors have in common has one history
            first = histories + begin - last_begin if begin < last_end else self.bytes
            ranges.append((begin, end, first))
            self.bytes = first + end - begin
        self.ranges = np.array(ranges, RANGE)

    def describe(self, address: int) -> str:
        """Where an address is, as seen from the tensor that is nearest."""

        def distance(extent: tuple[int, int]) -> int:
            return max(extent[0] - address, address + 1 - extent[1], 0)

        if not self._names:
            return "no tensor is live"
        begin, end = min(self._names, key=distance)
        name = f"{self._names[begin, end]} ({end - begin} bytes)"
        if address < begin:
            return f"{begin - address} bytes before {name}"
        return f"byte {address - begin} of {name}" if address < end else f"{address - end} bytes behind {name}"


def _extent(tensor: Tensor) -> tuple[int, int]:
    """From the first element to the last."""
    elements = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride()))
    return tensor.data_ptr(), tensor.data_ptr() + elements * tensor.element_size()


def _here(tensor: Tensor) -> Tensor:
    """Of a tensor that processes share, the shard that is in this one."""
    return getattr(tensor, "_local_tensor", tensor)


def held_by_callers(frame: FrameType | None) -> Iterator[tuple[str, Tensor]]:
    """The tensors that the functions of hf_winopt hold which lead to a frame, up to the optimizer that steps.

    Where none steps, as when a test launches a batch by itself, those too that the tests hold which lead there.
    """
    ours: list[dict[str, Any]] = []
    tests: list[dict[str, Any]] = []
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        if module.startswith("hf_winopt."):
            ours.append(dict(frame.f_locals))
            if isinstance(ours[-1].get("self"), Optimizer):
                tests = []
                break
        elif module.startswith("tests."):
            tests.append(dict(frame.f_locals))
        frame = frame.f_back
    seen: set[int] = set()
    for variables in (*ours, *tests):
        yield from _tensors("", variables, seen)


def _tensors(name: str, thing: Any, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    """The tensors in a thing and their gradients, through containers, objects of hf_winopt and optimizers.

    `seen` are the ids of what has been walked, all of which must be kept alive until the walk ends.
    """
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        yield name, _here(thing)
        if thing.is_leaf and thing.grad is not None:
            yield f"{name}.grad", _here(thing.grad)
    elif isinstance(thing, Mapping):
        for place, (key, value) in enumerate(thing.items()):
            word = type(value).__name__ if key == "self" else key if isinstance(key, str) else str(place)
            yield from _tensors(f"{name}.{word}" if name else word, value, seen)
    elif isinstance(thing, (list, tuple, set, frozenset)):
        for place, value in enumerate(thing):
            yield from _tensors(f"{name}[{place}]", value, seen)
    elif type(thing).__module__.startswith("hf_winopt.") or isinstance(thing, Optimizer):
        yield from _tensors(name, getattr(thing, "__dict__", {}), seen)
