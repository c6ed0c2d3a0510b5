"""`report.md`: the summary as a careful colleague would put it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hf_winopt.bench.table import markdown
from hf_winopt.compare.figures import duration, number, readable, signed
from hf_winopt.compare.outcome import FINISHED
from hf_winopt.compare.statistics import BETTER, CONFIDENCE, FEWEST, NO_RESULT, NOT_ENOUGH, TIE, WORSE
from hf_winopt.compare.summary import SUMMARY_FILE, Summary
from hf_winopt.public import wrapped

KEPT = ("`runs.jsonl`", "`plan.json`", "`machine.json`")

PICTURES = {
    "curves.png": "the metric against steps, mean and standard deviation over seeds",
    "differences.png": "differences to the baseline, seed by seed, with their intervals",
    "learning_rates.png": "the metric at the end for every learning rate tried",
}


def write(summary: Summary) -> str:
    """The whole page."""
    return "\n\n".join(part for part in _parts(summary) if part) + "\n"


def results_table(summary: Summary) -> str:
    """What came out for each optimizer, a row each."""
    heads = ("optimizer", "lr", f"{_judged(summary)}, mean ± sd", "by seed", "difference to baseline", "verdict")
    return markdown(heads, [_result_row(summary, row) for row in summary["optimizers"]])


def cost_table(summary: Summary) -> str:
    """Steps and time to the target and what a step costs, a row each."""
    heads = ("optimizer", "steps to target", "verdict", "time to target", "verdict", "ms per step", "state MB")
    return markdown(heads, [_cost_row(summary, row) for row in summary["optimizers"]])


def quote(summary: Summary, optim: str) -> str:
    """What a comparison says of one optimizer beside its baseline, for the card of a model trained with it.

    Args:
        summary: as read from a `summary.json`.
        optim: an optimizer's label in the comparison, or its name, as `--optim` takes it.

    Raises:
        ValueError: the comparison is not of this optimizer.
    """
    rows = summary["optimizers"]
    named = [row for row in rows if row["label"] == optim] or [row for row in rows if row["optim"] == optim]
    mine = named[0] if named else None
    if mine is None:
        raise ValueError(f"the comparison is of {', '.join(row['label'] for row in rows)}, and not of {optim}")
    shown = [row for row in rows if row is mine or row["label"] == summary["baseline"]]
    others = (
        f"Not of this model: other trainings, by the command below, of {len(rows)} optimizers"
        f"{' that were tuned alike' * summary['tuned']}, with {summary['seeds']} fresh seeds each."
    )
    said = (others, _unfinished(summary), _sentence(summary, mine), results_table({**summary, "optimizers": shown}))
    return "\n\n".join(filter(None, (*said, _how_to_read(summary), _command(summary))))


def quote_folder(folder: Path, optim: str) -> str:
    """`quote`, of what `hf-winopt compare --out FOLDER` has left.

    Raises:
        ValueError: there is no such comparison, or it is not of this optimizer.
    """
    try:
        return quote(json.loads((folder / SUMMARY_FILE).read_text(encoding="utf-8")), optim)
    except (OSError, KeyError, TypeError) as error:
        raise ValueError(f"no comparison can be read there: {error}") from None


def _parts(summary: Summary) -> Iterator[str]:
    yield f"# {_judged(summary)}: which optimizer?"
    yield _unfinished(summary)
    yield "\n".join(f"- {_sentence(summary, row)}" for row in summary["optimizers"])
    yield "## At equal steps"
    yield results_table(summary)
    yield _how_to_read(summary)
    yield "## On the way"
    yield cost_table(summary)
    yield _target(summary)
    yield from (f"![{what}]({name})" for name, what in PICTURES.items() if name in summary.get("pictures", ()))
    if summary["tuned"]:
        yield "## Learning rates"
        yield _grid_table(summary)
        yield _grid_notes(summary)
    if summary["mishaps"]:
        yield "## What went wrong"
        yield "\n".join(_mishap(entry) for entry in summary["mishaps"])
    yield "## How it was made"
    yield _made(summary)


def _sentence(summary: Summary, row: Mapping[str, Any]) -> str:
    name = f"**{row['label']}**"
    if row["lr"] is None:
        state = (
            "no learning rate worked, its runs diverged or failed"
            if row["ended"]
            else "its learning rate is not chosen"
        )
        return f"{name}: {state}."
    if row["against_baseline"] is None:
        result = _spread(row["final"])
        return (
            f"{name} is the baseline: {'none of its runs finished' if result == '-' else result}, with lr {_lr(row)}."
        )
    verdicts = row["against_baseline"]
    quality, steps, time = (verdicts[key] for key in ("quality", "steps", "time"))
    words = {BETTER: "better", WORSE: "worse", TIE: "a tie", NOT_ENOUGH: "not enough runs to say", NO_RESULT: NO_RESULT}
    text = f"{name}: {words[quality['word']]} at equal steps{_because(quality)}"
    if quality["word"] not in (NOT_ENOUGH, NO_RESULT):
        text += f"; {_speed(steps, 'steps')} and {_speed(time, 'time')} to the baseline's result"
    return text + "."


def _because(verdict: Mapping[str, Any]) -> str:
    interval, reason = None if verdict["by_divergence"] else verdict["interval"], verdict["reason"]
    said = [reason] if reason else []
    if interval and verdict["word"] == TIE:
        spread = (f"the difference lies between {signed(interval['low'])} and {signed(interval['high'])}",)
        said[:0] = ("the same in all pairs",) if interval["low"] == interval["high"] else spread
    elif interval and verdict["word"] in (BETTER, WORSE):
        said.insert(0, f"by {number(abs(interval['mean']), 3)}, {interval['n']} pairs")
    return f" ({'; '.join(said)})" if said else ""


def _speed(verdict: Mapping[str, Any], what: str) -> str:
    less = "fewer" if what == "steps" else "less"
    words = {BETTER: f"{less} {what}", WORSE: f"more {what}", TIE: f"a tie in {what}"}
    reason = f" ({verdict['reason']})" if verdict["reason"] and what == "steps" else ""
    return words.get(verdict["word"], f"no verdict on {what}") + reason


def _result_row(summary: Summary, row: Mapping[str, Any]) -> list[str]:
    against = row["against_baseline"]
    seeds = " ".join(
        str(value) if isinstance(value, str) else number(value) for value in row["final"]["seeds"].values()
    )
    verdict = against["quality"] if against else None
    return [
        row["label"],
        _lr(row),
        _spread(row["final"]),
        seeds or "-",
        _interval(verdict["interval"]) if verdict else "baseline",
        _word(verdict),
    ]


def _cost_row(summary: Summary, row: Mapping[str, Any]) -> list[str]:
    against, met = row["against_baseline"], row["steps_to_target"]
    runs = len(met["seeds"])
    share = f" ({met['reached']} of {runs} runs)" if met["reached"] != runs else ""
    steps = f"{met['mean']:.0f}{share}" if met["reached"] else "not reached" if runs else "-"
    seconds = row["seconds_to_target"]
    return [
        row["label"],
        steps,
        _word(against["steps"] if against else None),
        "-" if seconds is None else f"{duration(seconds)}{share}",
        _word(against["time"] if against else None),
        "-" if row["seconds_per_step"] is None else number(1000 * row["seconds_per_step"], 3),
        "-" if row["state_bytes"] is None else number(row["state_bytes"] / 1e6, 3),
    ]


def _word(verdict: Mapping[str, Any] | None) -> str:
    if verdict is None:
        return "-"
    interval = verdict["interval"]
    return f"**{verdict['word']}**" if interval and verdict["word"] in (BETTER, WORSE) else str(verdict["word"])


def _how_to_read(summary: Summary) -> str:
    direction = "Higher" if summary["greater_is_better"] else "Lower"
    steps = _steps(summary)
    return (
        f"{direction} is better. {steps}; the same model, data and order for the same seed; "
        f"{summary['seeds']} seeds that no learning rate was chosen by. Differences are paired by seed, with their "
        f"{CONFIDENCE:.0%} interval (t distribution): a tie is an interval that contains zero, and from fewer than "
        f"{FEWEST} pairs nothing is said. Each interval stands by itself: of twenty comparisons of equals one "
        "would look like a difference."
        + (f" Learning rates were chosen by {_metric(summary)}." if summary.get("test_metric") else "")
    )


def _steps(summary: Summary) -> str:
    (fewest, most), judged = summary["steps"].values(), sorted({*summary["judged_at"].values()})
    if not most:
        return "No run for the result has finished yet"
    text = f"All at {most} steps" if fewest == most else f"**Runs ended after {fewest} to {most} steps, not all alike**"
    if {*judged} == {fewest, most}:
        return text
    return f"{text}, **judged by their last evaluation, at step {' to '.join(map(str, judged))}**"


def _target(summary: Summary) -> str:
    if number(summary["target"]) == "-":
        return f"No run of the baseline, {summary['baseline']}, finished, so there is no target."
    return (
        f"The target is what the baseline, {summary['baseline']}, reaches at its end in the mean: {_metric(summary)} "
        f"{number(summary['target'])}; about half of its own runs may not get there. Steps are interpolated between "
        "evaluations, and the means are of the runs that reached it. In the verdicts, paired by seed, a run that did "
        "not counts with all its steps, which speaks against it and never for it. Time is steps times the median time "
        "of a step, without loading data and evaluating: in the verdicts that of the run, in the table that of all its "
        "runs."
    )


def _grid_table(summary: Summary) -> str:
    rows = []
    for row in summary["optimizers"]:
        cells = []
        for entry in row["grid"]:
            value = number(entry["value"]) if entry["state"] == FINISHED else entry["state"]
            cell = f"{entry['lr']:g}: {value}"
            cells.append(f"**{cell}**" if entry["lr"] == row["lr"] else cell)
        rows.append([row["label"], ", ".join(cells)])
    return markdown(("optimizer", f"{_metric(summary)} by learning rate, the chosen one bold"), rows)


def _grid_notes(summary: Summary) -> str:
    ends = [row["label"] for row in summary["optimizers"] if row["best_at_end_of_grid"]]
    text = f"Chosen on {summary['tune_seeds']} other {'seed' if summary['tune_seeds'] == 1 else 'seeds'}."
    if ends:
        text += f" Still best at an end of the grid, so that a better rate may lie beyond: {', '.join(ends)}."
    return text


def _mishap(entry: Mapping[str, Any]) -> str:
    run = f"{entry['optim']}, lr {entry['lr']:g}, seed {entry['seed']} ({entry['phase']})"
    first = "".join(f"; an attempt before it failed: {reason}" for reason in entry["failures"])
    if entry["state"] == FINISHED:
        return f"- {run}: finished at the second attempt{first}"
    return f"- {run}: {entry['state']}: {entry['reason']}{first}"


def _unfinished(summary: Summary) -> str:
    missing = summary["runs"]["missing"]
    return f"**Not finished; runs still missing: {missing}.** What follows is of those that ended." if missing else ""


def _made(summary: Summary) -> str:
    runs = summary["runs"]
    parts = [
        _command(summary),
        f"`hf-winopt compare --report DIR` makes this page again from {', '.join(KEPT[:-1])} and {KEPT[-1]}.",
        f"{runs['finished']} runs finished, {runs['diverged']} diverged, {runs['failed']} failed, "
        f"{runs['tried_again']} were tried again; {duration(summary['wall_seconds'])} of runs in all, "
        f"{summary['threads']} CPU {'thread' if summary['threads'] == 1 else 'threads'} each, "
        + "; then ".join(map(_machine, summary.get("machines", ())))
        + ".",
    ]
    return "\n\n".join(parts)


def _command(summary: Summary) -> str:
    return f"```sh\n{wrapped(summary['command'])}\n```"


def _machine(machine: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{key} {machine[key]}" for key in ("torch", "transformers", "hf_winopt") if machine.get(key))
    return f"{machine.get('runs_at_a_time', 1)} at a time on {machine['device']}, {machine['cpu']}, with {versions}"


# ------------------------------------------------------------------------------------------------------- cells


def _spread(final: Mapping[str, Any]) -> str:
    mean, sd = final["mean"], final["sd"]
    return number(mean) if sd is None or not math.isfinite(sd) else f"{number(mean)} ± {number(sd, 2)}"


def _interval(interval: Mapping[str, Any] | None) -> str:
    if interval is None:
        return "-"
    return f"{signed(interval['mean'])} [{signed(interval['low'])}, {signed(interval['high'])}]"


def _lr(row: Mapping[str, Any]) -> str:
    return "none" if row["lr"] is None else f"{row['lr']:g}"


def _metric(summary: Summary) -> str:
    return readable(summary["metric"])


def _judged(summary: Summary) -> str:
    return readable(summary.get("test_metric") or summary["metric"])
