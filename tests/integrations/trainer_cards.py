"""What Trainer left of a training: its card and its results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import Trainer


def card_of(trainer: Trainer) -> str:
    return Path(trainer.args.output_dir, "README.md").read_text()


def results_of(trainer: Trainer) -> dict[str, Any]:
    return json.loads(Path(trainer.args.output_dir, "results.json").read_text())


def is_ours(trainer: Trainer) -> bool:
    text = card_of(trainer)
    assert ("hf-winopt" in text) != ("generated automatically according to the information the Trainer" in text)
    return "hf-winopt" in text
