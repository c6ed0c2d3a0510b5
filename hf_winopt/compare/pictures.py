"""The pictures beside the report: curves with bands, the grids of learning rates, the paired differences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_winopt.compare.contenders import labels
from hf_winopt.compare.figures import readable
from hf_winopt.compare.outcome import FINISHED, Outcome
from hf_winopt.compare.plan import Run
from hf_winopt.compare.settings import Settings
from hf_winopt.compare.statistics import spread
from hf_winopt.compare.summary import Summary
from hf_winopt.drawing import colour, picture


def draw(out: Path, settings: Settings, summary: Summary, outcomes: Mapping[Run, Outcome]) -> list[str]:
    """Write the pictures for which there is anything to show; their file names."""
    metric, judged = readable(settings.metric), readable(settings.judged_by)
    drawn = []
    if any(run.phase == "final" and outcome.state == FINISHED for run, outcome in outcomes.items()):
        with picture(out / "curves.png", f"{metric} against steps", size=(10, 4.5)) as figure:
            _curves(figure, settings, outcomes, metric)
        drawn.append("curves.png")
    if any(_interval(row) for row in summary["optimizers"]):
        height = 1.6 + 0.45 * len(summary["optimizers"])
        with picture(out / "differences.png", f"{judged}: difference to {summary['baseline']}", (8, height)) as figure:
            _differences(figure, settings, summary, judged)
        drawn.append("differences.png")
    if summary["tuned"]:
        with picture(out / "learning_rates.png", f"{metric} by learning rate", size=(8, 4.5)) as figure:
            _learning_rates(figure, summary, metric)
        drawn.append("learning_rates.png")
    return drawn


def _curves(figure: Any, settings: Settings, outcomes: Mapping[Run, Outcome], metric: str) -> None:
    left, right = figure.subplots(1, 2)
    for index, label in enumerate(labels(settings.contenders)):
        mine = [o for r, o in outcomes.items() if r.phase == "final" and r.optim == label and o.state == FINISHED]
        _band(left, [list(outcome.losses) for outcome in mine], label, colour(index))
        _band(right, [outcome.curve(settings.metric) for outcome in mine], label, colour(index))
    left.set(title="training loss", xlabel="steps")
    right.set(title=f"{metric} on the evaluation set", xlabel="steps")
    right.legend()


def _band(axes: Any, curves: list[list[tuple[int, float]]], label: str, shade: str) -> None:
    """Mean and standard deviation over the curves, at the steps that all of them have."""
    points = [dict(curve) for curve in curves]
    steps = sorted(set.intersection(*map(set, points))) if points else []
    spreads = [spread([curve[step] for curve in points]) for step in steps]
    means = [mean for mean, _ in spreads]
    marker = "o" if len(steps) < 12 else None
    axes.plot(steps, means, color=shade, label=label, linewidth=1.6, marker=marker, markersize=3.5)
    if len(points) > 1:
        low, high = ([mean + sign * sd for mean, sd in spreads] for sign in (-1, 1))
        axes.fill_between(steps, low, high, color=shade, alpha=0.15, linewidth=0)


def _learning_rates(figure: Any, summary: Summary, metric: str) -> None:
    axes = figure.subplots()
    for index, row in enumerate(summary["optimizers"]):
        grid = [(entry["lr"], entry["value"]) for entry in row["grid"] if entry["state"] == FINISHED]
        line = {"color": colour(index), "linewidth": 1.6, "marker": "o", "markersize": 4}
        axes.plot(*zip(*grid, strict=True) if grid else ([], []), label=row["label"], **line)
        if (chosen := dict(grid).get(row["lr"])) is not None:
            axes.plot(row["lr"], chosen, "o", color=colour(index), markersize=9)
        for entry in row["grid"]:
            if entry["state"] != FINISHED:  # at the foot: there is no value
                axes.plot(entry["lr"], 0.02, "x", color=colour(index), transform=axes.get_xaxis_transform())
    axes.set(xscale="log", xlabel="learning rate (large dot: chosen; x: diverged or failed)", ylabel=metric)
    axes.legend()


def _differences(figure: Any, settings: Settings, summary: Summary, metric: str) -> None:
    axes = figure.subplots()
    rows = [(row, interval) for row in summary["optimizers"] if (interval := _interval(row))]
    base = next(row for row in summary["optimizers"] if row["against_baseline"] is None)["final"]["seeds"]
    for place, (row, interval) in enumerate(reversed(rows)):
        shade = colour(summary["optimizers"].index(row))
        mine = row["final"]["seeds"]
        pairs = [
            mine[s] - base[s] for s in mine if not isinstance(mine[s], str) and not isinstance(base.get(s, ""), str)
        ]
        axes.plot(pairs, [place] * len(pairs), "o", color=shade, alpha=0.4, markersize=4)
        axes.plot([interval["low"], interval["high"]], [place] * 2, color=shade, linewidth=2)
        axes.plot(interval["mean"], place, "D", color=shade, markersize=6)
    axes.axvline(0, color="#444444", linewidth=1)
    axes.set_yticks(range(len(rows)), [row["label"] for row, _ in reversed(rows)])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    side = "right" if settings.greater_is_better else "left"
    axes.set(xlabel=f"{metric}, mean and 95 % interval; better is to the {side}")


def _interval(row: Mapping[str, Any]) -> dict[str, float] | None:
    against = row["against_baseline"]
    interval = against["quality"]["interval"] if against else None
    return interval if interval and all(math.isfinite(value) for value in interval.values()) else None
