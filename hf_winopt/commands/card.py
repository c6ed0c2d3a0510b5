"""`hf-winopt card`: the model card of a training, from the results that it left."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hf_winopt.files import write_atomically, write_json


def main(argv: Sequence[str]) -> int:
    """Write the card, or with `--print` only show it; 1 where there are no results."""
    parser = argparse.ArgumentParser(
        prog="hf-winopt card", description="Make the model card of a run again, from its results.json."
    )
    parser.add_argument("output_dir", type=Path, help="what the training had as --output_dir")
    parser.add_argument(
        "--comparison",
        type=Path,
        metavar="FOLDER",
        help="of a `hf-winopt compare`, whose verdict over several seeds the card shall quote",
    )
    parser.add_argument("--print", action="store_true", help="print the card, write nothing")
    arguments = parser.parse_args(argv)
    from hf_winopt.compare.report import quote_folder
    from hf_winopt.integrations.hub import CARD_FILE, CURVES_FILE, RESULTS_FILE, WinOptModelCard, read_results

    folder, comparison = arguments.output_dir, arguments.comparison
    try:
        card, results = WinOptModelCard.of_run(folder), read_results(folder)
        if comparison is not None:
            results["comparison"] = quote_folder(comparison, results["optimizer"]["name"])
            card = WinOptModelCard.from_results(results, drawn=(folder / CURVES_FILE).exists())
    except ValueError as error:
        print(f"hf-winopt card: {error}", file=sys.stderr)
        return 1
    if arguments.print:
        print(card, end="")
    else:
        if comparison is not None:
            write_json(folder / RESULTS_FILE, results)
        write_atomically(folder / CARD_FILE, str(card))
        print(folder / CARD_FILE)
    return 0
