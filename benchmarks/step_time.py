"""Time of one optimizer step on the shapes of BERT-base, beside torch's AdamW in the same process.

    python -m benchmarks.step_time --json benchmarks/results/step_time.json
    python -m benchmarks.step_time --report benchmarks/results/step_time.json

It is `hf-winopt bench` in float32 with fewer columns; each optimizer is measured in rounds, a ratio is the median over
rounds of the ratio within a round. Measure on an idle machine: beside another process torch's fused AdamW can take
many times longer.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from hf_winopt import bench


def report(result: bench.Result, names: Iterable[str] = ()) -> str:
    """The times as Markdown: torch's optimizers, and ours of these names (default: all)."""
    return bench.report(result, names, bench.STEP_TIME, aligned=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", nargs="+", default=(), help="optimizers (default: all)")
    parser.add_argument("--backends", nargs="+", default=["auto"], help="engines (default: what suits the device)")
    parser.add_argument("--states", nargs="+", default=["float32"], help="levels of state (default: float32)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds per optimizer (default: 9)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument(
        "--report", type=Path, metavar="JSON", help="print the table of earlier figures, measure nothing"
    )
    args = parser.parse_args()
    if args.report:
        print(report(bench.load(args.report), args.names))
        return
    result = bench.measure(
        bench.make_plan(args.names, backends=args.backends, rounds=args.rounds, states=args.states), bench.print_times
    )
    if args.json:
        bench.save(args.json, result)
    print(report(result))


if __name__ == "__main__":
    main()
