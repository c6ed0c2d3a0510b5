"""To go on from a checkpoint whose best companion was pushed, or downloaded, to another place."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import Any

from hf_winopt.integrations.private import CHECKPOINT


def find_the_best_again(module: ModuleType) -> None:
    """Let `TrainerState.load_from_json` look for the best checkpoint beside its own where it is not where it was."""
    theirs = module.TrainerState.load_from_json.__func__

    def load_from_json(cls: Any, json_path: str) -> Any:
        """Trainer's state, from a checkpoint's `trainer_state.json`."""
        state, own = theirs(cls, json_path), Path(json_path).parent
        name = state.best_model_checkpoint
        if name is not None and Path(name).name == name and not os.path.isdir(name):  # as `public_state` writes it
            # Under hub_strategy="checkpoint" each is pushed under the same other name.
            found = own if name == f"{CHECKPOINT}{state.global_step}" else own.parent / name
            if found.is_dir():
                state.best_model_checkpoint = str(found)
        return state

    module.TrainerState.load_from_json = classmethod(load_from_json)
