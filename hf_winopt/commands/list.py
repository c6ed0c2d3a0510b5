"""`hf-winopt list`: the table of optimizers."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from hf_winopt.optim.composed import COMPOSED, Composed
from hf_winopt.optim.registry import OPTIMIZERS, Row
from hf_winopt.rules import STATES, Rule

HEADS = ("name", "class", "moved", "state", "papers", "when to use it")
HEADS_OF_COMPOSED = ("name", "base", "state", "papers", "when to use it")
LEGEND = (
    "moved: bytes that a step reads and writes per float32 parameter; state: bytes kept per parameter; both with\n"
    "state=float32, compact and 8bit in turn.\n"
    "LAMB is counted with weight decay (without it is Adam), AdaL without (with it moves 4 more).\n"
    "The second table: Win around the optimizers of others, and Muon (the state is that of matrices), with\n"
    "state=float32 and compact."
)


def main(argv: Sequence[str]) -> int:
    """Print the table, or with `--json` everything that is known of each optimizer."""
    parser = argparse.ArgumentParser(prog="hf-winopt list", description="List the optimizers. " + LEGEND)
    parser.add_argument("--json", action="store_true", help="as JSON: a list with an object for each optimizer")
    rows, composed = OPTIMIZERS.values(), COMPOSED.values()
    if parser.parse_args(argv).json:
        text = json.dumps([*map(_as_json, rows), *map(_composed_as_json, composed)], indent=2)
    else:
        text = _tables(rows, composed)
    try:
        print(text, flush=True)
    except BrokenPipeError:  # `hf-winopt list | head`: nobody reads on, and nothing may be flushed at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _as_json(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "class": row.cls.__name__,
        "fixed": dict(row.fixed),
        "defaults": dict(row.defaults),
        "bytes_per_param": row.bytes_per_param,
        "state_bytes_per_param": row.state_bytes_per_param,
        "levels": {
            level: {
                "bytes_per_param": row.at(level).bytes_per_param(weight_decay=False),
                "state_bytes_per_param": row.at(level).state_bytes_per_param(),
            }
            for level in STATES
        },
        "paper": row.paper,
        "formula": row.formula,
        "when": row.when,
    }


def _composed_as_json(row: Composed) -> dict[str, Any]:
    return {
        "name": row.name,
        "class": row.base,
        "fixed": dict(row.fixed),
        "state_bytes_per_param": row.kept[0],
        "needs": row.needs,
        "paper": row.paper,
        "formula": row.formula,
        "when": row.when,
    }


def _moved(rule: Rule) -> float:
    return rule.bytes_per_param(weight_decay=False)


def _in_turn(numbers: Sequence[float], form: str) -> str:
    return " ".join(f"{number:g}" if number == int(number) else f"{number:{form}}" for number in numbers)


def _tables(rows: Iterable[Row], composed: Iterable[Composed]) -> str:
    """Aligned columns; the papers, whose titles are long, are numbered and stand below."""
    numbers: dict[str, int] = {}

    def cited(row: Row | Composed) -> str:
        return " ".join(str(numbers.setdefault(paper, len(numbers) + 1)) for paper in row.paper.split("; "))

    lines = [HEADS]
    for row in rows:
        rules = [row.at(level) for level in STATES]
        moved, kept = [[cost(rule) for rule in rules] for cost in (_moved, Rule.state_bytes_per_param)]
        costs = (_in_turn(moved, ".0f"), _in_turn(kept, ".1f"))
        lines.append((row.name, row.cls.__name__, *costs, cited(row), row.when))
    others = [HEADS_OF_COMPOSED]
    for one in composed:
        others.append((one.name, one.base, _in_turn(one.kept, ".1f"), cited(one), one.when))
    papers_below = [f"{number}  {paper}" for paper, number in numbers.items()]
    return "\n".join([*_aligned(lines), "", *_aligned(others), "", LEGEND, "papers:", *papers_below])


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
