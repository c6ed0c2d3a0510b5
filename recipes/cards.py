"""Train what every recipe trains without a network, and keep the model cards: `python -m recipes.cards [NAME ...]`.

A card, its picture and the results that it is made of, for each in `model_cards/NAME/`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hf_winopt.integrations.hub import CARD_FILE, RESULTS_FILE
from hf_winopt.integrations.report import CURVES_FILE
from hf_winopt.public import ROOT

CARDS = ROOT / "model_cards"
TRAININGS = {
    "glue_embedded": "recipes/glue/run_glue.py recipes/glue/configs/embedded.yaml --optim adamw_win",
    "transformer_xl_embedded": "recipes/transformer_xl/run_transformer_xl.py "
    "recipes/transformer_xl/configs/small.yaml --optim adam_win",
    "vit_digits": "recipes/vit/run_vit.py recipes/vit/configs/digits.yaml --optim adamw_win",
}
"""The command line of each card."""
COMMON = "--license apache-2.0 --disable_tqdm true"


def make(name: str) -> Path:
    """Train, and put what describes the model into a folder of `model_cards`; the model itself is not kept."""
    with tempfile.TemporaryDirectory() as scratch:
        # Run there, so that the card's command has no folder that nobody else has.
        (Path(scratch) / "recipes").symlink_to(ROOT / "recipes")
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, *TRAININGS[name].split(), "--output_dir", f"runs/{name}", *COMMON.split()]
        subprocess.run(command, cwd=scratch, env=environment, check=True)
        folder = CARDS / name
        folder.mkdir(parents=True, exist_ok=True)
        for file in (CARD_FILE, CURVES_FILE, RESULTS_FILE):
            shutil.copy(Path(scratch, "runs", name, file), folder / file)
    return folder


def main(names: Sequence[str]) -> int:
    """Make the cards of these trainings, or of all."""
    if unknown := sorted(set(names) - set(TRAININGS)):
        print(f"no such card: {', '.join(unknown)} (there are {', '.join(TRAININGS)})", file=sys.stderr)
        return 1
    for name in names or TRAININGS:
        print(make(name).relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
