"""Every optimizer of a plan beside torch's AdamW: the figures."""

from __future__ import annotations

import contextlib
import gc
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .. import create_optimizer
from .bandwidth import SIZE, copy_bandwidth
from .launches import launches
from .machine import machine
from .memory import check_memory, free_bytes
from .plan import Plan
from .results import Result
from .shapes import Shape
from .timing import Sample, Step, interleaved, ratios, summary

BASELINES = ("fused", "foreach")
"""The implementations of `torch.optim.AdamW` that all others are compared with."""

OPTIONS: Mapping[str, Any] = {"lr": 1e-6, "weight_decay": 0.01}
"""So small a rate that thousands of steps change nothing of note; weight decay as most runs have it."""

Row = dict[str, Any]
Progress = Callable[[list[Row]], None]


def measure(plan: Plan, progress: Progress = lambda rows: None) -> Result:
    """Measure what a plan says.

    An optimizer and torch's two AdamW step the same parameters in turn; its state is freed before the next one's is
    made.

    Args:
        plan: what to measure.
        progress: is given the rows of each optimizer, torch's first, as soon as they are there.

    Returns:
        `shapes`, `dtype`, `tensors`, `elements`, `rounds`, `machine`, `copy_gb_per_s` (10^9 bytes a second that a copy
        reads and writes) and `rows`. A row has `name`, `backend`, `state` (ours), times (`median_ms`, `min_ms`,
        `max_ms`, `host_us`, `busy_ms`), `ratio_fused` and `ratio_foreach` with their quartiles over the rounds
        (`ratio_fused_quartiles`),
        `launches` and `copies`, `bytes_per_param` and `bytes_per_step`
        (that a step must move), `copy_bytes` (what a copy moves in that time), `gb_per_s`, `share_of_copy` and
        `state_bytes`; None for what the device has not.

    Raises:
        ValueError: it does not fit the memory.
    """
    check_memory(plan)
    with on(plan.device):
        bench = _Bench(plan)
        rows: list[Row] = []
        for name, backend, state in itertools.product(plan.names, plan.backends, plan.states):
            mine = bench.rows(name, backend, state)
            gc.collect()  # the state that this one leaves behind
            progress(mine)
            rows += mine
    return {
        "shapes": plan.model,
        "dtype": plan.dtype_name,
        "tensors": len(plan.shapes),
        "elements": plan.elements,
        "rounds": plan.rounds,
        "machine": machine(plan.device),
        "copy_gb_per_s": bench.copy / 1e9,
        "rows": rows,
    }


class _Bench:
    """Parameters, torch's optimizers of them, and the speed of a copy: what every optimizer is measured with."""

    def __init__(self, plan: Plan) -> None:
        free = free_bytes(plan.device)
        self.plan = plan
        self.copy = copy_bandwidth(plan.device, SIZE if free is None else min(SIZE, free // 4))
        self.params = parameters(plan)
        self.baselines = {
            "fused": torch.optim.AdamW(self.params, fused=True, **OPTIONS),
            "foreach": torch.optim.AdamW(self.params, foreach=True, **OPTIONS),
        }
        self.launches = {key: launches(baseline.step, plan.device) for key, baseline in self.baselines.items()}

    def rows(self, name: str, backend: str, state: str) -> list[Row]:
        """torch's two and ours, measured in the same rounds."""
        ours = create_optimizer(name, self.params, backend=backend, state=state, **OPTIONS)
        fused, foreach = self.baselines.values()
        # ours between the two: how fast a machine is changes from second to second, and foreach takes a third of one
        steps: dict[str, Step] = {"fused": fused.step, backend: ours.step, "foreach": foreach.step}
        samples = interleaved(steps, self.plan.rounds, self.plan.device)
        rows: list[Row] = []
        for key, theirs in self.baselines.items():
            row = _times(f"torch AdamW {key}", key, samples)
            # It reads parameter, gradient and both moments and writes all but the gradient, in the parameter's type
            row |= self._traffic(row["median_ms"], 7 * self.plan.dtype.itemsize)
            rows.append({**row, "state_bytes": _state_bytes(theirs), **self.launches[key]})
        row = _times(name, backend, samples)
        row |= self._traffic(row["median_ms"], ours.bytes_per_param())
        rows.append({**row, "state": state, "state_bytes": ours.state_bytes(), **launches(ours.step, self.plan.device)})
        return rows

    def _traffic(self, milliseconds: float, bytes_per_param: float) -> Row:
        """Bytes that a step must move, and those that a copy moves in the same time."""
        seconds, moved = milliseconds / 1e3, bytes_per_param * self.plan.elements
        return {
            "bytes_per_param": bytes_per_param,
            "bytes_per_step": moved,
            "copy_bytes": self.copy * seconds,
            "gb_per_s": moved / seconds / 1e9,
            "share_of_copy": moved / (self.copy * seconds),
        }


def parameters(plan: Plan) -> list[Tensor]:
    """The plan's parameters with a gradient each, drawn at random, the same every time."""
    generator = torch.Generator(plan.device).manual_seed(0)

    def normal(shape: Shape) -> Tensor:
        return torch.empty(shape, dtype=plan.dtype, device=plan.device).normal_(generator=generator)

    params: list[Tensor] = [torch.nn.Parameter(normal(shape).mul_(0.02)) for shape in plan.shapes]
    for p in params:
        # Far from 0: torch's foreach AdamW divides by 0 where the second moment of a float16 gradient vanishes
        p.grad = normal(tuple(p.shape)).abs_().add_(0.5)
    return params


def on(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """The device as the current one: events are recorded, and kernels launched, on no other."""
    if device.index is None:
        return contextlib.nullcontext()
    return torch.get_device_module(device).device(device)


def _times(name: str, key: str, samples: Mapping[str, list[Sample]]) -> Row:
    row: Row = {"name": name, "backend": key, **summary(samples[key])}
    for base in BASELINES:
        low, row[f"ratio_{base}"], high = ratios(samples[key], samples[base])
        row[f"ratio_{base}_quartiles"] = [low, high]
    return row


def _state_bytes(optimizer: torch.optim.Optimizer) -> int:
    tensors = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    return sum(t.numel() * t.element_size() for t in tensors)
