"""What Trainer pushes beside the model, without what is private in it.

Two of its files would tell more than their reader needs: `training_args.bin`, a pickle of all arguments with the token
and every folder, and a checkpoint's `trainer_state.json`, where the best checkpoint stands with its whole path. Both
hooks run when (and only if) the module in question is imported.
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from types import ModuleType
from typing import Any

from hf_winopt.files import write_atomically
from hf_winopt.integrations import names
from hf_winopt.integrations.arguments import WinOptArguments
from hf_winopt.public import is_secret, public_path

STATE_FILE = "trainer_state.json"
CHECKPOINT = "checkpoint-"  # Trainer's own name for them, before the step

_OF_TORCH_SAVE = 2  # pickle's protocol; what goes to another process has a later one, and stays whole


def hide_in_arguments(module: ModuleType) -> None:
    """Let `torch.save` leave tokens out of `TrainingArguments` that ask for one of our optimizers.

    Of folders elsewhere it then keeps the last part. Copies, and what another process is started with, have all.
    """
    theirs = module.TrainingArguments.__reduce_ex__

    def __reduce_ex__(self: Any, protocol: Any) -> Any:
        ours = isinstance(self, WinOptArguments) or names.lookup(self.optim) is not None
        if protocol != _OF_TORCH_SAVE or not ours:
            return theirs(self, protocol)
        shown = object.__new__(type(self))
        shown.__dict__.update({name: _shown(name, value) for name, value in self.__dict__.items()})
        return theirs(shown, protocol)

    module.TrainingArguments.__reduce_ex__ = __reduce_ex__


def find_the_best_again(module: ModuleType) -> None:
    """Let `TrainerState.load_from_json` look for the best checkpoint beside its own where it is not where it was."""
    theirs = module.TrainerState.load_from_json.__func__

    def load_from_json(cls: Any, json_path: str) -> Any:
        """Trainer's state, from a checkpoint's `trainer_state.json`."""
        state, own = theirs(cls, json_path), Path(json_path).parent
        if state.best_model_checkpoint is not None and not os.path.isdir(state.best_model_checkpoint):
            name = Path(state.best_model_checkpoint).name
            # Under hub_strategy="checkpoint" each is pushed under the same other name.
            found = own if name == f"{CHECKPOINT}{state.global_step}" else own.parent / name
            if found.is_dir():
                state.best_model_checkpoint = str(found)
        return state

    module.TrainerState.load_from_json = classmethod(load_from_json)


def hide_in_checkpoint(folder: Path) -> None:
    """Rewrite the `trainer_state.json` of a checkpoint that is about to be pushed."""
    file = folder / STATE_FILE
    if file.is_file():
        content = file.read_text(encoding="utf-8")
        if (public := public_state(content)) != content:
            write_atomically(file, public)


def public_state(content: str) -> str:
    """A `trainer_state.json`, the best checkpoint in it by its name alone where it had an absolute path."""
    state = json.loads(content)
    best = state.get("best_model_checkpoint")
    if best is None or not os.path.isabs(best):
        return content
    state["best_model_checkpoint"] = Path(best).name
    return json.dumps(state, indent=2, sort_keys=True) + "\n"


def _shown(name: str, value: Any) -> Any:
    if is_secret(name):
        return None
    if name == "logging_dir" and isinstance(value, str) and value.endswith(socket.gethostname()):
        value = os.path.dirname(value)  # transformers 4 names it after the time and the machine
    return public_path(value) if isinstance(value, str) and os.path.isabs(value) else value
