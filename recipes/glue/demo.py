"""`make demo`: AdamW and AdamW-Win on the embedded data, one after the other, and what to make of it.

Two calls of `run_glue.py` with `configs/embedded.yaml` and another `--optim`, then a table. No network.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

SETTINGS = Path(__file__).parent / "configs" / "embedded.yaml"
OPTIMIZERS = {"AdamW": "adamw_torch_fused", "AdamW-Win": "adamw_win"}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="demo.py", description=__doc__.splitlines()[0])
    parser.add_argument("--output_dir", type=Path, default=ROOT / "runs" / "demo", help="overwritten")
    parser.add_argument("--max_steps", type=int, help="instead of those of configs/embedded.yaml")
    args = parser.parse_args(argv)

    start = time.perf_counter()
    print("hf-winopt demo: AdamW and AdamW-Win teach the same tiny BERT to tell good English from bad.")
    print('  good  "The keys near the cabinet are old."')
    print('  bad   "The keys near the cabinet is old."\n', flush=True)

    runs = {name: _train(name, optim, args) for name, optim in OPTIMIZERS.items()}

    from hf_winopt.integrations.report import draw_curves
    from recipes.glue.side_by_side import table

    picture = args.output_dir / "curves.png"
    draw_curves(picture, runs)
    print(f"\n{table(runs)}\n")
    print("One seed of one synthetic task: it shows that both work here, not which one is better.")
    print(f"Done in {time.perf_counter() - start:.0f} s.\n")
    print(f"The picture:      {_shown(picture)}")
    for name, optim in OPTIMIZERS.items():
        print(f"{f'{name} card:':<17} {_shown(args.output_dir / optim / 'README.md')}")
    print(
        "\nNext:\n"
        '  in your own Trainer script    import hf_winopt; TrainingArguments(..., optim="adamw_win")\n'
        "  in one that stays as it is    hf-winopt run your_script.py --optim adamw_win\n"
        "  on the real CoLA (downloads)  python recipes/glue/run_glue.py recipes/glue/configs/adamw_win.yaml"
    )


def _train(name: str, optim: str, args: argparse.Namespace) -> dict[str, Any]:
    # Imported here, so that the first words of the demo do not wait for torch.
    import datasets
    import torch
    import transformers

    from recipes.glue import run_glue

    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    torch.set_num_threads(1)  # this model is too small to share out, and one thread suffers least from neighbours
    arguments = [str(SETTINGS), "--optim", optim, "--output_dir", str(args.output_dir / optim), "--overwrite"]
    if args.max_steps:
        arguments += ["--max_steps", str(args.max_steps)]
    return run_glue.main(arguments, title=f"{name:>9}")


def _shown(path: Path) -> str:
    return os.path.relpath(path)


if __name__ == "__main__":
    main()
