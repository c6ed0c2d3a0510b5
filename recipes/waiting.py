"""How much of a training is spent waiting for data."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from hf_winopt.integrations.timing import StepTimer

Batch = TypeVar("Batch")


class Waiting:
    """Seconds until the loader had the next batch, in this process.

    Args:
        steps: the timer of the steps, in which waiting is not counted.
    """

    def __init__(self, steps: StepTimer) -> None:
        self.steps, self.seconds = steps, 0.0

    @contextmanager
    def measured(self) -> Iterator[None]:
        """While a batch is asked for."""
        start = time.perf_counter()
        try:
            yield
        finally:
            waited = time.perf_counter() - start
            self.seconds += waited
            self.steps.leave_out(waited)

    def over(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches, their loading measured."""
        iterator = iter(batches)
        while True:
            try:
                with self.measured():
                    batch = next(iterator)
            except StopIteration:
                return
            yield batch

    @property
    def share(self) -> float:
        """Of the time of steps and waiting together, from 0 to 1."""
        return self.seconds / max(self.seconds + sum(self.steps.seconds), 1e-12)
