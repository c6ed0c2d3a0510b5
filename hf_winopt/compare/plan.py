"""Which runs there are: a pure function of the settings and of what the runs so far have shown.

So going on after an interruption needs no memory but the outcomes: the plan is made again and what has an outcome is
not run again.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from hf_winopt.compare import rates
from hf_winopt.compare.contenders import Contender
from hf_winopt.compare.outcome import FAILED, Outcome
from hf_winopt.compare.settings import Settings

FIRST_TUNE_SEED = 1001
"""Seeds that choose a rate count from here, those of the result from 1: they never meet."""


@dataclass(frozen=True)
class Run:
    """One training.

    Args:
        phase: "tune", where the learning rate is chosen, or "final", where the result comes from.
        optim: label of the contender.
        lr: peak learning rate.
        seed: of weights, data order and dropout.
    """

    phase: str
    optim: str
    lr: float
    seed: int

    @property
    def folder(self) -> Path:
        """Where it lives, from the output folder."""
        return Path("runs", quote(self.optim, safe="[]=,"), f"lr_{self.lr:g}", f"seed_{self.seed}")

    def __str__(self) -> str:
        return f"{self.optim} lr {self.lr:g} seed {self.seed}"


Outcomes = Mapping[Run, Outcome]


@dataclass(frozen=True)
class Plan:
    """What is known of all the runs.

    Args:
        runs: those that can be named, in order: tuning first.
        unnamed: how many more there will be at least, once rates are chosen.
        chosen: label -> the rate of the result, for contenders that have one.
    """

    runs: tuple[Run, ...]
    unnamed: int
    chosen: Mapping[str, float]


def make_plan(settings: Settings, outcomes: Outcomes) -> Plan:
    """All runs that can be named so far.

    Each contender is tuned over equally many rates. While the best of any is at an end of its grid, and at most
    `settings.extensions` times, all grids go on by one rate.
    """
    grids = {contender.label: list(contender.rates) for contender in settings.contenders}
    unnamed = settings.seeds * len(grids)
    if all(len(grid) == 1 for grid in grids.values()):
        return _with_final(settings, (), {label: grid[0] for label, grid in grids.items()})
    for extension in range(settings.extensions + 1):
        tuning = tuple(_tuning(settings, grids))
        if any(run not in outcomes for run in tuning):
            return Plan(tuning, unnamed, {})
        scores = {label: rate_scores(settings, outcomes, label, grid) for label, grid in grids.items()}
        # One that cannot even start (a library that is not installed) says nothing about rates.
        alive = {run.optim for run in tuning if outcomes[run].state != FAILED}
        if extension == settings.extensions or not any(rates.is_at_end(scores[label]) for label in alive):
            break
        for label in alive:
            grids[label].append(rates.further(scores[label]))
    chosen = {
        label: rates.best(by_rate)
        for label, by_rate in scores.items()
        if any(math.isfinite(score) for score in by_rate.values())
    }
    return _with_final(settings, tuning, chosen)


def rate_scores(settings: Settings, outcomes: Outcomes, label: str, grid: list[float]) -> dict[float, float]:
    """Rate -> mean score over the tuning seeds, less is better; infinite where a run diverged or failed."""
    return {
        lr: statistics.fmean(
            score if (score := settings.score(outcomes[run].value(settings.metric))) < math.inf else math.inf
            for run in _seeds_of(settings, label, lr)
        )
        for lr in grid
    }


def command(settings: Settings, contender: Contender, run: Run, output_dir: str) -> list[str]:
    """What `hf-winopt run` is given for this run."""
    words = [*settings.script, *settings.arguments, "--optim", contender.name, *contender.arguments]
    if contender.optim_args:
        words += ["--optim_args", contender.optim_args]
    words += ["--learning_rate", repr(run.lr), "--seed", str(run.seed), "--output_dir", output_dir]
    return words


def _tuning(settings: Settings, grids: Mapping[str, list[float]]) -> Iterator[Run]:
    # Rate by rate, so that whoever cannot start shows it early.
    for index in range(max(map(len, grids.values()))):
        for label, grid in grids.items():
            if index < len(grid):
                yield from _seeds_of(settings, label, grid[index])


def _seeds_of(settings: Settings, label: str, lr: float) -> Iterator[Run]:
    for index in range(settings.tune_seeds):
        yield Run("tune", label, lr, FIRST_TUNE_SEED + index)


def _with_final(settings: Settings, tuning: tuple[Run, ...], chosen: Mapping[str, float]) -> Plan:
    # Seed by seed, so that every contender has some results early.
    final = (Run("final", label, lr, seed) for seed in range(1, settings.seeds + 1) for label, lr in chosen.items())
    return Plan((*tuning, *final), 0, chosen)
