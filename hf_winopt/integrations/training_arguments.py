"""`TrainingArguments` with the optimizers' options as fields; importing this imports transformers."""

import copy
import os
from dataclasses import dataclass
from typing import Any

from transformers import TrainingArguments

from hf_winopt.integrations.arguments import WinOptArguments
from hf_winopt.public import is_secret, public_path


@dataclass(repr=False)  # that of TrainingArguments, which hides tokens
class WinOptTrainingArguments(WinOptArguments, TrainingArguments):
    """`TrainingArguments` and `WinOptArguments` in one.

    Trainer pickles its arguments into `training_args.bin` and pushes that to the Hub. A pickle of these has no token,
    and of folders elsewhere only the last part.
    """

    def __getstate__(self) -> dict[str, Any]:
        return {name: _shown(name, value) for name, value in self.__dict__.items()}

    def __copy__(self) -> "WinOptTrainingArguments":
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> "WinOptTrainingArguments":
        other = object.__new__(type(self))
        memo[id(self)] = other
        other.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return other


def _shown(name: str, value: Any) -> Any:
    if is_secret(name):
        return None
    return public_path(value) if isinstance(value, str) and os.path.isabs(value) else value
