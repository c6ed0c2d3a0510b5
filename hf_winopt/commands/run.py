"""`hf-winopt run SCRIPT ...`: the script as `python SCRIPT ...` would run it, the optimizer names known."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from hf_winopt import scripts

EXAMPLES = """
examples:
  hf-winopt run run_glue.py --optim adamw_win --optim_args "reckless_steps=2:8" ...
  accelerate launch -m hf_winopt run run_glue.py --optim adan ...
"""


def main(argv: Sequence[str]) -> int:
    """Run the script or module as `__main__`; the exit status is its own."""
    parser = _parser()
    # Read by hand: argparse would look for its own options among the script's.
    if not argv:
        parser.error("which script?")
    if argv[0] == "-m" and len(argv) == 1:
        parser.error("-m: which module?")
    if argv[0] != "-m":
        if argv[0].startswith("-"):
            parser.parse_args(argv[:1])
        if not os.path.exists(argv[0]):
            parser.error(f"no such script: {argv[0]}")
    return scripts.run(argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hf-winopt run",
        usage="hf-winopt run (SCRIPT | -m MODULE) [ARGUMENT ...]",
        description="Run a script, unmodified, that then accepts the names of `hf-winopt list` as `--optim`.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("script", nargs="?", metavar="SCRIPT", help="the script, run as python would run it")
    parser.add_argument("-m", dest="module", metavar="MODULE", help="a module instead, as `python -m` would run it")
    parser.add_argument("arguments", nargs="*", metavar="ARGUMENT", help="what follows is for the script alone")
    return parser
