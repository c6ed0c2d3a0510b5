"""Times of steps that take turns, so that whatever slows the machine for a while slows all of them."""

from __future__ import annotations

import functools
import gc
import math
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
        ms: milliseconds that the device is busy with it. What the host takes to prepare it is not among them on an
            accelerator, which has something else to do meanwhile.
        host_us: microseconds until the call returned; None on the CPU, where the two are one.
    """

    ms: float
    host_us: float | None = None


class Ahead:
    """Gives an accelerator something to do for a while: copies, the same work for whatever is timed behind them.

    Args:
        device: the accelerator.
    """

    BYTES = 1 << 27
    """Of the tensor that is copied: more than caches hold, so that nothing timed finds its tensors there."""

    def __init__(self, device: torch.device) -> None:
        self._module = torch.get_device_module(device)
        self._source = torch.ones(self.BYTES // 4, dtype=torch.float32, device=device)
        self._target = torch.zeros_like(self._source)
        self._copy(WARM_UP)
        self._seconds = self._of_copies(100) / 100

    def for_seconds(self, seconds: float) -> None:
        """Give it work for at least so long; returns at once."""
        self._copy(math.ceil(seconds / self._seconds))

    def _of_copies(self, count: int) -> float:
        begin, end = (self._module.Event(enable_timing=True) for _ in range(2))
        begin.record()
        self._copy(count)
        end.record()
        self._module.synchronize()
        return float(begin.elapsed_time(end)) / 1e3

    def _copy(self, count: int) -> None:
        for _ in range(count):
            self._target.copy_(self._source)


def timed(step: Step, device: torch.device, ahead: Callable[[], None] = lambda: None) -> Sample:
    """Time one step.

    Args:
        step: it is taken once.
        device: where it runs.
        ahead: gives an accelerator work for longer than the host needs for the step.
    """
    if device.type == "cpu":
        start = time.perf_counter()
        step()
        return Sample(1e3 * (time.perf_counter() - start))
    module = torch.get_device_module(device)
    begin, end = module.Event(enable_timing=True), module.Event(enable_timing=True)
    module.synchronize()
    ahead()
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
    aheads = _aheads(steps, device)
    samples: dict[str, list[Sample]] = {key: [] for key in steps}
    for _ in range(rounds):
        for key, step in steps.items():
            samples[key].append(timed(step, device, aheads[key]))
    return samples


def _aheads(steps: Mapping[str, Step], device: torch.device) -> dict[str, Callable[[], None]]:
    """For each step what keeps the device busy for three times as long as the host has needed for it."""
    if device.type == "cpu":
        return dict.fromkeys(steps, lambda: None)
    ahead = Ahead(device)
    host = {key: 1e-6 * (timed(step, device).host_us or 0.0) for key, step in steps.items()}
    return {key: functools.partial(ahead.for_seconds, 3 * seconds) for key, seconds in host.items()}


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
