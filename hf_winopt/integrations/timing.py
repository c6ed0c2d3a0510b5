"""How long training steps take."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from transformers.trainer_callback import TrainerCallback


class StepTimer(TrainerCallback):
    """Seconds of each optimizer step, forward and backward included; loading data and evaluating are not.

    Args:
        synchronize: wait for the GPU at both ends of a step. Without, a step is as long as Trainer waits for it.
    """

    def __init__(self, *, synchronize: bool = True) -> None:
        self.synchronize = synchronize
        self.seconds: list[float] = []
        self._start = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._start = self._now()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds.append(self._now() - self._start)

    def leave_out(self, seconds: float) -> None:
        """What has passed since the step began and is not the step's: loading data, in a loop of one's own."""
        self._start += seconds

    def _now(self) -> float:
        if self.synchronize and torch.cuda.is_available():
            torch.cuda.synchronize()  # the step is done when the GPU says so
        return time.perf_counter()

    @property
    def median(self) -> float | None:
        """Without the first step, which also pays for warming up; None where there is no other."""
        return statistics.median(self.seconds[1:]) if len(self.seconds) > 1 else None
