"""What a person sees while runs are under way: a line a finished run, bars with the time left on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from hf_winopt.compare.carry_out import seconds_left
from hf_winopt.compare.figures import duration, number
from hf_winopt.compare.outcome import FINISHED, Outcome
from hf_winopt.compare.plan import Plan, Run
from hf_winopt.compare.runs import progress
from hf_winopt.compare.settings import Settings


class Display:
    """Shows how far the plan is, on stderr.

    Args:
        out: the output folder.
        settings: what was asked for.
        slots: runs at a time.
    """

    def __init__(self, out: Path, settings: Settings, slots: int) -> None:
        self.out, self.settings, self.slots = out, settings, slots
        self.told: set[Run] | None = None
        self.bars: list[tqdm[None]] = []
        if sys.stderr.isatty():
            self.bars = [tqdm(position=index, leave=False, bar_format="{desc}") for index in range(slots + 1)]

    def __call__(self, plan: Plan, outcomes: dict[Run, Outcome], running: Sequence[Run]) -> None:
        new = [run for run in outcomes if self.told is not None and run not in self.told]
        left = seconds_left(plan, outcomes, self.slots)
        time_left = "" if left is None else f", about {duration(left)} left"
        at = f"{len(outcomes)} of {len(plan.runs) + plan.unnamed}"
        if self.told is None:
            tqdm.write(self.settings.question, file=sys.stderr)
            tqdm.write(f"{at} runs are done{time_left}; {self.slots} at a time, logs in {self.out}", file=sys.stderr)
        for run in new:
            tqdm.write(f"{at}: {run}: {self._result(outcomes[run])}{time_left}", file=sys.stderr)
        self.told = set(outcomes)
        if self.bars:
            self._draw(plan, outcomes, running, time_left)

    def close(self) -> None:
        for bar in self.bars:
            bar.close()

    def _result(self, outcome: Outcome) -> str:
        if outcome.state != FINISHED:
            return f"{outcome.state}, {outcome.reason}"
        metric = self.settings.metric
        return f"{metric} {number(outcome.value(metric))} in {duration(outcome.wall_seconds)}"

    def _draw(self, plan: Plan, outcomes: dict[Run, Outcome], running: Sequence[Run], time_left: str) -> None:
        whole, *each = self.bars
        _set(whole, f"all runs{time_left}", len(outcomes), len(plan.runs) + plan.unnamed)
        for index, bar in enumerate(each):
            if index < len(running):
                _set(bar, str(running[index]), *progress(self.out, running[index]))
            else:
                _set(bar, "", 0, 0)


def _set(bar: tqdm[None], text: str, done: int, of: int) -> None:
    bar.bar_format = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}" if of else "{desc}"
    bar.total, bar.n = of, done
    bar.set_description_str(text, refresh=False)
    bar.refresh()
