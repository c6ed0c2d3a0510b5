"""Times of steps that take turns, so that whatever slows the machine for a while slows all of them."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

Step = Callable[[], Any]

WARM_UP = 3
"""Steps before the first that counts: state is made, rules are compiled, clocks rise."""


@dataclass(frozen=True)
class Sample:
    """One step.

    Args:
        ms: milliseconds from its start on an idle device until the device is done.
        host_us: microseconds until the call returned, which on an accelerator is before the device is done; None on
            the CPU, where the two are one.
    """

    ms: float
    host_us: float | None = None


def timed(step: Step, device: torch.device) -> Sample:
    """Time one step."""
    if device.type == "cpu":
        start = time.perf_counter()
        step()
        return Sample(1e3 * (time.perf_counter() - start))
    module = torch.get_device_module(device)
    begin, end = module.Event(enable_timing=True), module.Event(enable_timing=True)
    module.synchronize()
    begin.record()
    start = time.perf_counter()
    step()
    host = time.perf_counter() - start
    end.record()
    module.synchronize()
    return Sample(begin.elapsed_time(end), 1e6 * host)


def interleaved(steps: Mapping[str, Step], rounds: int, device: torch.device) -> dict[str, list[Sample]]:
    """Every step once a round, `rounds` times, after a warm-up: for each its samples, round by round."""
    for step in steps.values():
        for _ in range(WARM_UP):
            step()
    gc.collect()
    samples: dict[str, list[Sample]] = {key: [] for key in steps}
    for _ in range(rounds):
        for key, step in steps.items():
            samples[key].append(timed(step, device))
    return samples


def ratios(samples: Sequence[Sample], base: Sequence[Sample]) -> tuple[float, float, float]:
    """How many times as long as `base` it took in the same round: quartile, median and quartile over the rounds."""
    of_rounds = [mine.ms / theirs.ms for mine, theirs in zip(samples, base)]
    if len(of_rounds) == 1:
        return of_rounds[0], of_rounds[0], of_rounds[0]
    low, median, high = statistics.quantiles(of_rounds, n=4, method="inclusive")
    return low, median, high


def summary(samples: Sequence[Sample]) -> dict[str, float | None]:
    """Median, least and greatest milliseconds, and the median of the host's microseconds."""
    times = [sample.ms for sample in samples]
    host = [sample.host_us for sample in samples if sample.host_us is not None]
    return {
        "median_ms": statistics.median(times),
        "min_ms": min(times),
        "max_ms": max(times),
        "host_us": statistics.median(host) if host else None,
    }
