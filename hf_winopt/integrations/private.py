"""What Trainer pushes beside the model, without what is private in it.

Some of its files would tell more than their reader needs: `training_args.bin`, a pickle of all arguments with the token
and every folder, and `trainer_state.json`, where the best checkpoint stands with its whole path.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any

from hf_winopt.files import write_atomically
from hf_winopt.integrations import names
from hf_winopt.integrations.arguments import WinOptArguments
from hf_winopt.public import is_secret, public_path, public_text

STATE_FILE = "trainer_state.json"
CHECKPOINT = "checkpoint-"  # Trainer's own name for them, before the step

_OF_TORCH_SAVE = 2  # pickle's protocol; what goes to another process has a later one, and stays whole

_hiding: ContextVar[bool] = ContextVar("hiding", default=False)


@contextmanager
def hiding(ours: bool) -> Iterator[None]:
    """Arguments saved in here are those of a Trainer with one of our optimizers, whatever their `optim` says."""
    before = _hiding.set(ours)
    try:
        yield
    finally:
        _hiding.reset(before)


def hide_in_arguments(module: ModuleType) -> None:
    """Let `torch.save` leave tokens out of `TrainingArguments` that ask for one of our optimizers.

    Of folders elsewhere it then keeps the last part. Copies, and what another process is started with, have all.
    """
    theirs = module.TrainingArguments.__reduce_ex__

    def __reduce_ex__(self: Any, protocol: Any) -> Any:
        ours = _hiding.get() or isinstance(self, WinOptArguments) or names.lookup(self.optim) is not None
        if protocol != _OF_TORCH_SAVE or not ours:
            return theirs(self, protocol)
        shown = object.__new__(type(self))
        shown.__dict__.update({name: _shown(name, value) for name, value in self.__dict__.items()})
        return theirs(shown, protocol)

    module.TrainingArguments.__reduce_ex__ = __reduce_ex__


def hide_in_folder(folder: Path) -> None:
    """Rewrite what of a checkpoint, or of an output folder, would tell of this machine when it is pushed.

    A `trainer_state.json`, and in a checkpoint the `README.md` that PEFT leaves there.
    """
    from hf_winopt.integrations.hub import CARD_FILE  # which takes the client along

    for name, public in ((STATE_FILE, public_state), (CARD_FILE, public_text)):
        file = folder / name
        if file.is_file() and (name == STATE_FILE or folder.name.startswith(CHECKPOINT)):
            content = file.read_text(encoding="utf-8")
            if (hidden := public(content)) != content:
                write_atomically(file, hidden)


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
    if isinstance(value, dict):
        return {key: _shown(str(key), each) for key, each in value.items()}
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(_shown(name, each) for each in value)
    if isinstance(value, Path):
        return Path(public_path(str(value)))
    return public_path(value) if isinstance(value, str) and (os.path.isabs(value) or "../" in value) else value
