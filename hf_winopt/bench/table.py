"""Figures as Markdown, to be read as they stand in a terminal."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .comparison import BASELINES, Row
from .results import Result


@dataclass(frozen=True)
class Column:
    """A column: its head, what it says of a row, and what that means, where the head does not say it."""

    head: str
    text: Callable[[Row], str]
    meaning: str = ""


def number(key: str, scale: float = 1.0) -> Callable[[Row], str]:
    """The entry `key` times `scale` in three digits; "-" where it is not known."""
    return lambda row: "-" if row.get(key) is None else three_digits(row[key] * scale)


def count(key: str) -> Callable[[Row], str]:
    """The entry `key` as a whole number; "-" where it is not known."""
    return lambda row: "-" if row.get(key) is None else f"{row[key]:.0f}"


def three_digits(value: float) -> str:
    """Three digits at least, and no fraction from 100 on: 0.0123, 1.23, 12.3, 1234."""
    return f"{value:.0f}" if abs(value) >= 99.95 else f"{value:#.3g}"


def _ratio(key: str) -> Callable[[Row], str]:
    return lambda row: f"{row[key]:.2f}"


def _ratio_with_quartiles(key: str) -> Callable[[Row], str]:
    """The median, and where they are known the quartiles."""

    def text(row: Row) -> str:
        low, high = row.get(f"{key}_quartiles") or (None, None)
        return f"{row[key]:.2f}" if low is None else f"{row[key]:.2f} ({low:.2f} to {high:.2f})"

    return text


def milliseconds(value: float) -> str:
    """Whole from 10 on, three digits below."""
    return f"{value:.0f}" if value >= 10 else three_digits(value)


def _level(row: Row) -> str:
    """Older figures are of float32."""
    return "-" if row["backend"] in BASELINES else str(row.get("state", "float32"))


def _share(row: Row) -> str:
    return f"{row['share_of_copy']:.0%}" if row.get("share_of_copy") is not None else "-"


STEP_TIME = (
    Column("optimizer", lambda row: row["name"]),
    Column("backend", lambda row: row["backend"]),
    Column("state", _level, "the level of state (docs/state.md)"),
    Column("ms", lambda row: milliseconds(row["median_ms"]), "one step, from an idle device until it is done"),
    Column(
        "x fused",
        _ratio_with_quartiles("ratio_fused"),
        "times as long as torch's AdamW(fused=True) in the same round: median (quartiles)",
    ),
    Column("x foreach", _ratio("ratio_foreach"), "the same of foreach=True"),
    Column("bytes/param", lambda row: f"{row.get('bytes_per_param', 28):.0f}", "that a step must read and write"),
)
"""Time alone."""

COLUMNS = (
    *STEP_TIME,
    Column("GB to move", number("bytes_per_step", 1e-9), "the same for all parameters"),
    Column("GB copied", number("copy_bytes", 1e-9), "what a plain copy reads and writes in that time"),
    Column("GB/s", number("gb_per_s"), "GB to move in that time"),
    Column("of copy", _share, "GB/s as a share of the copy's; above 100% where a copy reads what it overwrites"),
    Column("host us", number("host_us"), "microseconds until step() returns; - on the CPU, where it is the step"),
    Column("launches", count("launches"), "device kernels of a step"),
    Column("copies", count("copies"), "memcpy and memset of a step"),
    Column("busy ms", number("busy_ms"), "kernels and copies alone, without the pauses between them"),
    Column("state MB", number("state_bytes", 1e-6), "kept between steps"),
)
"""All that is known."""

LEGEND = "\n".join(f"{column.head}: {column.meaning}" for column in COLUMNS if column.meaning)


def report(result: Result, names: Iterable[str] = (), columns: Sequence[Column] = COLUMNS, aligned: bool = True) -> str:
    """A line on what was measured, and the table.

    Args:
        result: as `measure` returns it; what older files lack is shown as "-".
        names: optimizers to show, beside torch's (default: all).
        columns: what to show of each (default: all that is known).
        aligned: pad the columns, for a terminal (default: True).

    Raises:
        ValueError: a name that was not measured, or figures of something else.
    """
    if any(f"ratio_{base}" not in row for row in result["rows"] for base in BASELINES):
        raise ValueError("these figures were not compared with torch's AdamW: they are of another benchmark")
    rows = [row for row in result["rows"] if row["backend"] not in BASELINES]
    measured = dict.fromkeys(row["name"] for row in rows)
    wanted = tuple(names) or tuple(measured)
    if missing := [name for name in wanted if name not in measured]:
        raise ValueError(f"not measured: {', '.join(missing)}; measured: {', '.join(measured)}")
    shown = [*_baselines(result["rows"]), *(row for row in rows if row["name"] in wanted)]
    cells = [[column.text(row) for column in columns] for row in shown]
    return f"{heading(result)}\n\n{markdown([column.head for column in columns], cells, aligned)}"


def print_times(rows: Sequence[Row]) -> None:
    """Progress: a line for each row of ours, on stderr, where it does not mix with the table."""
    for row in rows:
        if row["backend"] not in BASELINES:
            print(f"{row['name']} {row['backend']}: {milliseconds(row['median_ms'])} ms", file=sys.stderr, flush=True)


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]], aligned: bool = True) -> str:
    """A Markdown table, its columns padded to one width if `aligned`."""
    lines = [heads, *rows]
    widths = [max(map(len, column)) if aligned else 0 for column in zip(*lines)]
    head, *body = ("| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines)
    rule = "|" + "|".join("-" * max(3, width + 2) for width in widths) + "|"
    return "\n".join([head, rule, *body])


def heading(result: Result) -> str:
    """A line on what was measured and on what."""
    m, millions = result["machine"], result["elements"] / 1e6
    size = f"{millions:.1f}" if millions >= 1 else f"{millions:.2g}"
    driver = f", driver {m['driver']}" if m.get("driver") else ""
    copy = f", a copy moves {three_digits(result['copy_gb_per_s'])} GB/s" if "copy_gb_per_s" in result else ""
    return (
        f"{result['shapes']}, {size} M {result.get('dtype', 'float32')} parameters "
        f"in {result['tensors']} tensors; {m['device']}, {m['cpu']}, {m['threads']} threads{driver}{copy}; "
        f"torch {m['torch']}, median of {result['rounds']} rounds"
    )


def _baselines(rows: Sequence[Row]) -> list[Row]:
    """torch's rows: medians over those beside each name."""
    merged = []
    for base in BASELINES:
        mine = [row for row in rows if row["backend"] == base]
        keys = [key for key in mine[0] if not key.endswith("_quartiles")]
        merged.append({key: _median([row.get(key) for row in mine]) for key in keys})
    return merged


def _median(values: Sequence[Any]) -> Any:
    numbers = [value for value in values if isinstance(value, (int, float))]
    return statistics.median(numbers) if numbers else values[0]
