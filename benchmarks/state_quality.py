"""What the levels of state cost in quality: each against float32 of the same optimizer, by `hf-winopt compare`.

    python -m benchmarks.state_quality

It prints one table of the reports that lie under `benchmarks/results/levels_*`, each made by the command that stands
in its `summary.json`: the same seeds, at the rate that was tuned for float32.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hf_winopt.bench.table import markdown

RESULTS = Path(__file__).with_name("results")
TASKS = {
    "cola": "BERT (MiniLM-L6) on CoLA, loss",
    "cifar10": "ViT on CIFAR-10, test loss",
    "transformer_xl": "Transformer-XL on WikiText-2, test loss",
}
OPTIMIZERS = ("adamw_win", "adan")
LEVELS = ("compact", "8bit")


def summary(task: str, optimizer: str) -> dict[str, Any]:
    """What a comparison found."""
    found: dict[str, Any] = json.loads((RESULTS / f"levels_{task}_{optimizer}" / "summary.json").read_text("utf-8"))
    return found


def rows() -> Iterator[list[str]]:
    for task, title in TASKS.items():
        for optimizer in OPTIMIZERS:
            float32, *levels = summary(task, optimizer)["optimizers"]
            for level, found in zip(LEVELS, levels, strict=True):
                yield [title, optimizer, level, *_figures(float32["final"], found)]


def _figures(float32: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    quality = found["against_baseline"]["quality"]
    interval = quality["interval"]
    return [
        f"{float32['mean']:.4f} ± {float32['sd']:.4f}",
        f"{interval['mean']:+.5f} [{interval['low']:+.5f}, {interval['high']:+.5f}]",
        f"{abs(interval['mean']) / float32['sd']:.3f}",
        quality["word"],
    ]


def table() -> str:
    heads = ["task", "optimizer", "level", "float32, mean ± sd", "difference [95 %]", "of the spread", "verdict"]
    return markdown(heads, list(rows()), aligned=False)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(table())


if __name__ == "__main__":
    main()
