"""Win, Adan, AdaL, AGR and AdamW-D for PyTorch, and under their names for the Hugging Face Trainer.

Importing this module is enough for `TrainingArguments(optim="adamw_win")`; it imports transformers itself only when
something of it is used.
"""

from typing import TYPE_CHECKING, Any

from .integrations import accelerate as _accelerate
from .integrations import transformers as _transformers
from .integrations import zero as _zero
from .integrations.arguments import WinOptArguments
from .integrations.transformers import register_optimizer
from .optim import LAMB, OPTIMIZERS, SGD, AdaL, Adam, AdamW, Adan, create_optimizer

if TYPE_CHECKING:
    from .integrations.cards import WinOptCardCallback
    from .integrations.training_arguments import WinOptTrainingArguments

__version__ = "0.1.0"

__all__ = [
    "LAMB",
    "OPTIMIZERS",
    "SGD",
    "AdaL",
    "Adam",
    "AdamW",
    "Adan",
    "WinOptArguments",
    "WinOptCardCallback",
    "WinOptTrainingArguments",
    "create_optimizer",
    "register_optimizer",
]

_transformers.install()
_accelerate.install()
_zero.install()


def __getattr__(name: str) -> Any:
    if name == "WinOptTrainingArguments":  # a subclass of transformers' own, which takes seconds to import
        from .integrations.training_arguments import WinOptTrainingArguments

        return WinOptTrainingArguments
    if name == "WinOptCardCallback":
        from .integrations.cards import WinOptCardCallback

        return WinOptCardCallback
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
