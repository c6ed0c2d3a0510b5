"""`hf-winopt bench`: what a step costs on this machine."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hf_winopt import bench
from hf_winopt.engine import BACKENDS
from hf_winopt.files import check_place
from hf_winopt.rules import STATES

EPILOG = f"""
columns:
{bench.LEGEND}

Measure on an idle machine: beside another process torch's fused AdamW can take many times longer on a CPU.

examples:
  hf-winopt bench adamw_win adan
  hf-winopt bench adamw_win --shapes llama-1b --dtype bfloat16 --json figures.json
  hf-winopt bench adamw_win --shapes microsoft/deberta-v3-base
"""


def main(argv: Sequence[str]) -> int:
    """Measure and print the table, or print that of earlier figures; the exit status, 130 when interrupted."""
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        if args.report:
            print(bench.report(bench.load(args.report), args.names))
            return 0
        plan = bench.make_plan(
            args.names, args.shapes, args.dtype, args.backends, args.device, args.rounds, args.states
        )
        bench.check_memory(plan)
        check_place(args.json, "--json")
    except (OSError, ValueError) as error:
        parser.error(str(error))
    try:
        result = bench.measure(plan, bench.print_times)
    except KeyboardInterrupt:
        print("interrupted; nothing is written", file=sys.stderr)
        return 130
    if args.json:
        bench.save(args.json, result)
    print(bench.report(result))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hf-winopt bench",
        usage="hf-winopt bench [NAME ...] [OPTION ...]",
        description="Measure a step of the optimizers, in turn with torch's AdamW, and compare with a plain copy.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="optimizers, of `hf-winopt list` (default: all)")
    parser.add_argument(
        "--shapes",
        default="bert-base",
        metavar="SHAPES",
        help=f"parameters like those of {', '.join(bench.SHAPES)}, or of a model id or folder (default: bert-base)",
    )
    parser.add_argument("--dtype", choices=bench.DTYPES, default="float32", help="of the parameters (default: float32)")
    parser.add_argument(
        "--backends",
        nargs="+",
        default=["auto"],
        metavar="BACKEND",
        help=f"{', '.join(BACKENDS)}, or what suits the device: auto (default: auto)",
    )
    parser.add_argument(
        "--states",
        nargs="+",
        default=["float32"],
        metavar="LEVEL",
        help=f"levels of state: {', '.join(STATES)} (default: float32)",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, xpu ... (default: the accelerator, else the CPU)")
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="times that each is timed (default: 9)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    parser.add_argument(
        "--report", type=Path, metavar="JSON", help="print the table of earlier figures, measure nothing"
    )
    return parser
