"""`summary.json`: all that the report says, as numbers; made from the settings and the outcomes alone."""

from __future__ import annotations

import math
import statistics as medians
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

from hf_winopt.compare import rates
from hf_winopt.compare.contenders import Contender, labels
from hf_winopt.compare.outcome import DIVERGED, FAILED, FINISHED, Outcome
from hf_winopt.compare.plan import Outcomes, Plan, Run
from hf_winopt.compare.settings import Settings
from hf_winopt.compare.statistics import (
    BETTER,
    NO_RESULT,
    NOT_ENOUGH,
    TIE,
    WORSE,
    Verdict,
    judge,
    judge_divergence,
    spread,
    steps_to,
)
from hf_winopt.public import public_command

Summary = dict[str, Any]

SUMMARY_FILE = "summary.json"


def summarize(settings: Settings, plan: Plan, outcomes: Outcomes) -> Summary:
    """Everything the report says but versions, machine and time of day.

    Args:
        settings: what was asked for.
        plan: the runs as far as they are known.
        outcomes: of the runs that ended; the summary is of these.
    """
    baseline = choose_baseline(settings, plan, outcomes)
    views = {contender.label: _View(settings, contender, plan, outcomes) for contender in settings.contenders}
    target = spread(list(views[baseline].ends.values()))[0]
    finished = [o for run, o in outcomes.items() if run.phase == "final" and o.state == FINISHED]
    steps = [outcome.steps for outcome in finished] or [0]
    judged = [outcome.curve(settings.metric)[-1][0] for outcome in finished] or [0]
    for view in views.values():
        view.aim(target, max(steps))
    ended = [outcomes[run] for run in plan.runs if run in outcomes]
    missing = len(plan.runs) - len(ended) + plan.unnamed
    return {
        "metric": settings.metric,
        "test_metric": settings.test_metric,
        "greater_is_better": settings.greater_is_better,
        "baseline": baseline,
        "target": target,
        "steps": {"fewest": min(steps), "most": max(steps)},
        "judged_at": {"fewest": min(judged), "most": max(judged)},
        "seeds": settings.seeds,
        "tune_seeds": settings.tune_seeds,
        "threads": settings.threads,
        "tuned": any(run.phase == "tune" for run in plan.runs),
        "command": public_command(["hf-winopt", "compare"], settings.command),
        "runs": {state: sum(o.state == state for o in ended) for state in (FINISHED, DIVERGED, FAILED)}
        | {"missing": missing, "tried_again": sum(bool(outcome.failures) for outcome in ended)},
        "wall_seconds": math.fsum(outcome.wall_seconds for outcome in ended),
        "optimizers": [view.summary(None if label == baseline else views[baseline]) for label, view in views.items()],
        "mishaps": [
            {**asdict(run), "state": outcome.state, "reason": outcome.reason, "failures": list(outcome.failures)}
            for run in plan.runs
            if (outcome := outcomes.get(run)) and (outcome.state != FINISHED or outcome.failures)
        ],
    }


def choose_baseline(settings: Settings, plan: Plan, outcomes: Outcomes) -> str:
    """Whom the others are held against: as asked for, otherwise the best of transformers' own, otherwise the first.

    The best is that of the tuning runs, so that the choice does not favour it on the seeds of the result; where nothing
    was tuned, the one with the fewest runs lost and then the best mean at its end.
    """
    if settings.baseline:
        return settings.baseline
    theirs = [contender.label for contender in settings.contenders if not contender.is_ours]
    phase = "tune" if any(run.phase == "tune" for run in plan.runs) else "final"

    def rank(label: str) -> tuple[float, float]:
        mine = [
            o for r, o in outcomes.items() if (r.phase, r.optim) == (phase, label) and r.lr == plan.chosen.get(label)
        ]
        values = [settings.score(outcome.value(settings.metric)) for outcome in mine if outcome.state == FINISHED]
        return len(mine) - len(values), spread(values)[0] if values else math.inf

    return min(theirs, key=rank) if theirs else labels(settings.contenders)[0]


class _View:
    """What the outcomes say of one contender."""

    def __init__(self, settings: Settings, contender: Contender, plan: Plan, outcomes: Outcomes) -> None:
        self.settings, self.contender, self.plan = settings, contender, plan
        self.tuning = {r: o for r, o in outcomes.items() if r.phase == "tune" and r.optim == contender.label}
        self.final = {
            r.seed: o
            for r, o in sorted(outcomes.items(), key=_seed)
            if (r.phase, r.optim) == ("final", contender.label)
        }
        finished = {seed: outcome for seed, outcome in self.final.items() if outcome.state == FINISHED}
        self.ends = {seed: outcome.value(settings.metric) for seed, outcome in finished.items()}
        self.values = {seed: outcome.value(settings.judged_by) for seed, outcome in finished.items()}
        self.seconds_per_step = _median(o.seconds_per_step for o in self.final.values())
        self.ended = not plan.unnamed and all(run in outcomes for run in plan.runs if run.optim == contender.label)
        self.whole = 0
        self.reached: dict[int, float | None] = {}

    def aim(self, target: float, whole: int) -> None:
        """Find the step at which every seed meets the target; a `whole` run has so many."""
        self.whole = whole
        score, metric = self.settings.score, self.settings.metric
        for seed, outcome in self.final.items():
            if outcome.state != FAILED and math.isfinite(target):
                curve = [(step, score(value)) for step, value in outcome.curve(metric)]
                self.reached[seed] = steps_to(curve, score(target))

    def lost(self) -> int:
        return sum(outcome.state == DIVERGED for outcome in self.final.values())

    def summary(self, baseline: _View | None) -> Summary:
        label = self.contender.label
        mean, sd = spread(list(self.values.values()))
        reached = [step for step in self.reached.values() if step is not None]
        steps = spread(reached)[0]
        return {
            "label": label,
            "optim": self.contender.name,
            "optim_args": self.contender.optim_args,
            "lr": self.plan.chosen.get(label),
            "grid": self._grid(),
            "best_at_end_of_grid": label in self.plan.chosen and self._at_end(),
            "ended": self.ended,
            "final": {"mean": mean, "sd": sd, "seeds": {str(s): self._final(s) for s in self.final}},
            "diverged": self.lost(),
            "failed": sum(outcome.state == FAILED for outcome in self.final.values()),
            "steps_to_target": {"mean": steps, "reached": len(reached), "seeds": dict(self.reached)},
            "seconds_per_step": self.seconds_per_step,
            "seconds_to_target": _times(steps, self.seconds_per_step),
            "state_bytes": _median(outcome.state_bytes for outcome in self.final.values()),
            "against_baseline": None if baseline is None else self._against(baseline),
        }

    def _final(self, seed: int) -> float | str:
        return self.values[seed] if seed in self.values else self.final[seed].state

    def _grid(self) -> list[Summary]:
        by_rate: dict[float, list[Outcome]] = {}
        for run, outcome in self.tuning.items():
            by_rate.setdefault(run.lr, []).append(outcome)
        return [
            {
                "lr": lr,
                "value": spread([o.value(self.settings.metric) for o in by_rate[lr]])[0],
                "state": next((o.state for o in by_rate[lr] if o.state != FINISHED), FINISHED),
            }
            for lr in sorted(by_rate)
        ]

    def _at_end(self) -> bool:
        grid = self._grid()
        return rates.is_at_end({row["lr"]: self.settings.score(row["value"]) for row in grid}) if grid else False

    def _against(self, baseline: _View) -> Summary:
        if not self._has_result() or not baseline._has_result():
            who = "it" if baseline._has_result() else "the baseline"
            nothing = asdict(Verdict(NO_RESULT, None, f"{who} has no run that finished or diverged"))
            return {"quality": nothing, "steps": nothing, "time": nothing}
        both = [seed for seed in self.values if seed in baseline.values]
        differences = [self.values[seed] - baseline.values[seed] for seed in both]
        quality = judge(differences, less_is_better=not self.settings.greater_is_better)
        quality = judge_divergence(quality, self._lost_of_all(), baseline._lost_of_all())
        steps = self._sooner(baseline, lambda view, seed: 1.0)
        time = self._sooner(baseline, lambda view, seed: view.final[seed].seconds_per_step)
        if quality.word == WORSE and baseline._any_reached() and not self._any_reached():
            steps = time = Verdict(WORSE, None, "none of its runs reached the target")
        return {"quality": asdict(quality), "steps": asdict(steps), "time": asdict(time)}

    def _has_result(self) -> bool:
        return any(outcome.state != FAILED for outcome in self.final.values())

    def _any_reached(self) -> bool:
        return any(step is not None for step in self.reached.values())

    def _lost_of_all(self) -> tuple[int, int]:
        return self.lost(), self.lost() + len(self.values)

    def _sooner(self, baseline: _View, cost: Callable[[_View, int], float | None]) -> Verdict:
        """Of the seeds where one of the two met the target; the other, if it did not, counts as meeting it at the end.

        A difference is then at least (where the baseline did not meet it: at most) what is counted, so that such seeds
        can speak against whoever did not meet the target, and not for it.
        """
        both = [seed for seed in self.reached if seed in baseline.reached]
        seeds = [s for s in both if self.reached[s] is not None or baseline.reached[s] is not None]
        differences = []
        for seed in seeds:
            mine, theirs = cost(self, seed), cost(baseline, seed)
            if mine is None or theirs is None:
                return Verdict(NO_RESULT, None, "the time of a step is not known")
            differences.append(self._met(seed) * mine - baseline._met(seed) * theirs)
        verdict = judge(differences, less_is_better=True)
        for words, view, whose in (((BETTER, TIE), self, "its"), ((WORSE,), baseline, "the baseline's")):
            if verdict.word in words and any(view.reached[seed] is None for seed in seeds):
                late = sum(view.reached[seed] is None for seed in both)
                reason = f"{late} of {whose} {len(both)} runs did not reach the target"
                return Verdict(NOT_ENOUGH, verdict.interval, reason)
        return verdict

    def _met(self, seed: int) -> float:
        met = self.reached[seed]
        return float(self.whole) if met is None else met


def _seed(item: tuple[Run, Outcome]) -> int:
    return item[0].seed


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return medians.median(known) if known else None


def _times(steps: float, seconds: float | None) -> float | None:
    return None if seconds is None or not math.isfinite(steps) else steps * seconds
