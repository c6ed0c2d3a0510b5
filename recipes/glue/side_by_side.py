"""Runs of `run_glue.py` beside each other: a table, and with `--png` one picture.

    python recipes/glue/side_by_side.py runs/a/results.json runs/b/results.json --png curves.png

It shows what was run. Whether one optimizer is better takes more seeds than one.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from hf_winopt.compare.statistics import steps_to

TARGET_LOSS = math.log(2) / 2
"""Half the loss of tossing a coin."""


def table(runs: Mapping[str, dict[str, Any]]) -> str:
    """What a reader wants to know of each run, a row each."""
    header = ("", "eval loss", "Matthews corr.", f"steps to eval loss {TARGET_LOSS:.2f}", "ms per step")
    rows = [header]
    for name, results in runs.items():
        scores = results["metrics"]["validation"]
        steps = steps_to([(entry["step"], entry["loss"]) for entry in results["history"]["evaluation"]], TARGET_LOSS)
        rows.append(
            (
                name,
                f"{scores['loss']:.3f}",
                f"{scores['matthews_correlation']:.3f}",
                "not reached" if steps is None else f"{steps:.0f}",
                f"{1000 * (results['seconds_per_step'] or math.nan):.1f}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = ["  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="side_by_side.py", description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="+", type=Path, help="the results.json of each run, on the same task")
    parser.add_argument("--png", type=Path, help="draw the curves here")
    args = parser.parse_args(argv)
    runs = {run["optimizer"]["name"]: run for run in (json.loads(path.read_text()) for path in args.results)}
    print(table(runs))
    if args.png:
        from hf_winopt.integrations.report import draw_curves

        draw_curves(args.png, runs)


if __name__ == "__main__":
    main()
