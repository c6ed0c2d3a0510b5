"""`hf-winopt card`: the model card of a run that a recipe has finished."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hf_winopt.files import write_atomically


def main(argv: Sequence[str]) -> int:
    """Write the card, or with `--print` only show it; 1 where there are no results."""
    parser = argparse.ArgumentParser(
        prog="hf-winopt card", description="Make the model card of a run again, from its results.json."
    )
    parser.add_argument("output_dir", type=Path, help="what the recipe had as --output_dir")
    parser.add_argument("--print", action="store_true", help="print the card, write nothing")
    arguments = parser.parse_args(argv)
    from hf_winopt.integrations.hub import CARD_FILE, WinOptModelCard

    try:
        card = str(WinOptModelCard.of_run(arguments.output_dir))
    except ValueError as error:
        print(f"hf-winopt card: {error}", file=sys.stderr)
        return 1
    if arguments.print:
        print(card)
    else:
        write_atomically(arguments.output_dir / CARD_FILE, card)
        print(arguments.output_dir / CARD_FILE)
    return 0
