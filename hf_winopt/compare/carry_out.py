"""The plan carried out: what has an outcome is read, what has none is run, until nothing is left."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path

from hf_winopt.compare import archive
from hf_winopt.compare.outcome import FAILED, Outcome
from hf_winopt.compare.plan import Plan, Run, make_plan
from hf_winopt.compare.pools import Pool
from hf_winopt.compare.runs import find, make_job
from hf_winopt.compare.settings import Settings

Show = Callable[[Plan, dict[Run, Outcome], Sequence[Run]], None]
"""Called with the plan, the outcomes and the runs under way whenever something may have changed."""

POLL_SECONDS = 0.5


def settled(
    settings: Settings, out: Path, known: Mapping[Run, Outcome] | None = None
) -> tuple[Plan, dict[Run, Outcome]]:
    """The plan as far as outcomes take it, and those outcomes: known ones, of the runs' folders, or of `runs.jsonl`.

    Raises:
        ValueError: a run that ended well did not log the metric.
    """
    kept = archive.load(out)
    outcomes = dict(known or {})
    while True:
        plan = make_plan(settings, outcomes)
        new = {run: o for run in plan.runs if run not in outcomes and (o := find(out, run) or kept.get(run))}
        if not new:
            return plan, outcomes
        outcomes |= {run: settings.count(found, run.phase) for run, found in new.items()}


def carry_out(settings: Settings, out: Path, pool: Pool, show: Show) -> tuple[Plan, dict[Run, Outcome]]:
    """Execute every run that has no outcome yet; the plan and the outcomes then.

    Raises:
        ValueError: a run that ended well did not log the metric, or the first run of every optimizer failed; the
            others would fare no better.
    """
    outcomes: dict[Run, Outcome] = {}
    while True:
        plan, outcomes = settled(settings, out, outcomes)
        waiting = [run for run in plan.runs if run not in outcomes]
        if not waiting:
            return plan, outcomes
        futures: dict[Future[Outcome], Run] = {pool.submit(make_job(settings, run, out)): run for run in waiting}
        while futures:
            show(plan, outcomes, list(futures.values())[: pool.slots])
            done, _ = wait(futures, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
            for future in done:
                run = futures.pop(future)
                outcomes[run] = settings.count(future.result(), run.phase)
            _check_that_any_can(settings, out, outcomes)
        show(plan, outcomes, ())


def _check_that_any_can(settings: Settings, out: Path, outcomes: Mapping[Run, Outcome]) -> None:
    failed = {run.optim: run for run, outcome in outcomes.items() if outcome.state == FAILED}
    if len(failed) == len(settings.contenders) and all(outcome.state == FAILED for outcome in outcomes.values()):
        run = next(iter(failed.values()))
        log = out / run.folder / "log.txt"
        raise ValueError(f"the first run of every optimizer failed: {outcomes[run].reason} (all of it in {log})")


def seconds_left(plan: Plan, outcomes: dict[Run, Outcome], slots: int) -> float | None:
    """How long what is left will take at least, by the mean of what is done; None before the first run is done."""
    if not outcomes:
        return None
    mean = statistics.fmean(outcome.wall_seconds for outcome in outcomes.values())
    left = sum(run not in outcomes for run in plan.runs) + plan.unnamed
    return mean * left / slots
