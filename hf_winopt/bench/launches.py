"""What a step gives an accelerator to do: kernels, copies, and for how long they keep it busy."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

PROFILED = 3
"""Steps that are profiled, each by itself."""

Counts = dict[str, float | None]

UNKNOWN: Counts = {"launches": None, "copies": None, "busy_ms": None}


def launches(step: Callable[[], Any], device: torch.device) -> Counts:
    """Profile a step, after one that is not.

    Returns:
        launches: kernels; copies: memcpy and memset; busy_ms: milliseconds of both, the pauses between them left out.
        Medians over `PROFILED` steps; None each on the CPU, and where the profiler sees nothing of the device.
    """
    activity = {"cuda": ProfilerActivity.CUDA, "xpu": ProfilerActivity.XPU}.get(device.type)
    if activity is None:
        return dict(UNKNOWN)
    step()
    seen = [counts(_trace(step, [ProfilerActivity.CPU, activity], device)) for _ in range(PROFILED)]
    return {key: _median([count[key] for count in seen]) for key in UNKNOWN}


def counts(events: Iterable[Mapping[str, Any]]) -> Counts:
    """The same of the events of one step, as the profiler exports them; durations there are microseconds."""
    kinds: dict[str, list[float]] = {"kernel": [], "gpu_memcpy": [], "gpu_memset": []}
    for event in events:
        if event.get("ph") == "X" and event.get("cat") in kinds:
            kinds[event["cat"]].append(float(event["dur"]))
    kernels, copies = kinds["kernel"], kinds["gpu_memcpy"] + kinds["gpu_memset"]
    if not kernels:
        return dict(UNKNOWN)
    return {"launches": len(kernels), "copies": len(copies), "busy_ms": sum(kernels + copies) / 1e3}


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _trace(step: Callable[[], Any], activities: list[ProfilerActivity], device: torch.device) -> list[dict[str, Any]]:
    synchronize = torch.get_device_module(device).synchronize
    synchronize()
    with profile(activities=activities) as seen:
        step()
        synchronize()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        # The exported trace names what each event is; the event objects count annotations among the kernels
        seen.export_chrome_trace(str(path))
        return json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
