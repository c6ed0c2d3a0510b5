"""What a training leaves: `results.json`, and made from it alone, `curves.png` and the model card `README.md`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hf_winopt.drawing import colour, picture
from hf_winopt.files import plain, write_atomically, write_json
from hf_winopt.integrations.hub import CARD_FILE, CURVES_FILE, RESULTS_FILE, WinOptModelCard, drawn_as, readable, score
from hf_winopt.integrations.results import Results

_STYLES: tuple[dict[str, Any], ...] = (
    {"linestyle": "-", "marker": "o", "markersize": 3.5},
    {"linestyle": "--", "marker": "s", "markersize": 3.5},
)


def write_report(folder: Path, results: Results, *, card: bool = True) -> None:
    """The three files, or without the card two; no picture without matplotlib.

    `results.json` comes last, since it marks a recipe's run as finished.
    """
    results, drawn = plain(results), False
    if find_spec("matplotlib") is not None:
        drawn = draw_curves(folder / CURVES_FILE, {results["optimizer"]["name"]: results})
    if card:
        write_atomically(folder / CARD_FILE, str(WinOptModelCard.from_results(results, drawn=drawn)))
    write_json(folder / RESULTS_FILE, results)


def summary(results: Results) -> str:
    """The final scores, a line for each validation set."""
    return "\n".join(
        f"{results['task']}, {split}: "
        + ", ".join(f"{readable(name)} {score(value)}" for name, value in scores.items())
        for split, scores in results["metrics"].items()
    )


def draw_curves(path: Path, runs: Mapping[str, Results]) -> bool:
    """Training loss and headline metric against steps, one colour a run; False where neither was logged."""
    first = next(iter(runs.values()))
    histories = [results["history"] for results in runs.values()]
    panels: list[Callable[[Any, Mapping[str, Results]], None]] = []
    if any(history["train"] for history in histories):
        panels.append(_draw_losses)
    if any(_with(history["evaluation"], first["headline"]) for history in histories):
        panels.append(_draw_scores)
    if not panels:
        return False
    title = ", ".join(filter(None, (first["task"], first["model"]["name"])))
    with picture(path, title, size=(5 * len(panels), 4)) as figure:
        for axes, draw in zip(figure.subplots(1, len(panels), sharex=True, squeeze=False)[0], panels, strict=True):
            draw(axes, runs)
    return True


def _draw_losses(axes: Any, runs: Mapping[str, Results]) -> None:
    for index, (label, results) in enumerate(runs.items()):
        train = results["history"]["train"]
        marker = "o" if len(train) == 1 else None
        axes.plot(*_points(train, "loss"), color=colour(index), label=label, linewidth=1.6, marker=marker)
    axes.set(title="Training loss", xlabel="steps")
    axes.legend(loc="upper right")  # where a falling loss leaves room


def _draw_scores(axes: Any, runs: Mapping[str, Results]) -> None:
    first = next(iter(runs.values()))
    metric, splits = first["headline"], list(first["metrics"])
    for index, (label, results) in enumerate(runs.items()):
        for split, style in zip(splits, _STYLES, strict=False):
            evaluation = [entry for entry in results["history"]["evaluation"] if entry["split"] == split]
            if not (evaluation := _with(evaluation, metric)):
                continue
            points = _points(evaluation, metric)
            name = f"{label if len(splits) == 1 else f'{label}, {readable(split)}'}: {score(points[1][-1])}"
            if len(evaluation) == 1:  # of the end alone: no line, and seen through, since it lies on another's
                style = {"linestyle": "none", "marker": "D", "markerfacecolor": "none", "markersize": 8}
            axes.plot(*points, color=colour(index), label=name, linewidth=1.6, **style)
    axes.set(title=f"{drawn_as(metric)[0].upper()}{drawn_as(metric)[1:]}", xlabel="steps")
    axes.legend()


def _with(history: Sequence[Mapping[str, Any]], key: str | None) -> list[Mapping[str, Any]]:
    return [entry for entry in history if key in entry]


def _points(history: Sequence[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
    return [entry["step"] for entry in history], [math.nan if entry[key] is None else entry[key] for entry in history]
