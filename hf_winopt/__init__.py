"""Win, Adan, AdaL, AGR and AdamW-D for PyTorch, and under their names for the Hugging Face Trainer.

Importing this module is enough for `TrainingArguments(optim="adamw_win")`; it imports torch and transformers itself
only when something of it is used, so that commands answer at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .integrations import accelerate as _accelerate
from .integrations import lightning as _lightning
from .integrations import transformers as _transformers
from .integrations import zero as _zero

if TYPE_CHECKING:
    from .integrations.arguments import WinOptArguments
    from .integrations.cards import WinOptCardCallback
    from .integrations.names import register_optimizer
    from .integrations.training_arguments import WinOptTrainingArguments
    from .optim import COMPOSED, LAMB, OPTIMIZERS, SGD, AdaL, Adam, AdamW, Adan, NAdamW, Win, create_optimizer

__version__ = "0.1.0"

__all__ = [
    "COMPOSED",
    "LAMB",
    "OPTIMIZERS",
    "SGD",
    "AdaL",
    "Adam",
    "AdamW",
    "Adan",
    "NAdamW",
    "Win",
    "WinOptArguments",
    "WinOptCardCallback",
    "WinOptTrainingArguments",
    "create_optimizer",
    "register_optimizer",
]

_HOME = {
    **dict.fromkeys(
        ("COMPOSED", "LAMB", "OPTIMIZERS", "SGD", "AdaL", "Adam", "AdamW", "Adan", "NAdamW", "Win", "create_optimizer"),
        ".optim",
    ),
    "WinOptArguments": ".integrations.arguments",
    "WinOptCardCallback": ".integrations.cards",
    "WinOptTrainingArguments": ".integrations.training_arguments",
    "register_optimizer": ".integrations.names",
}
"""Where each name comes from, at its first use."""

_transformers.install()
_accelerate.install()
_lightning.install()
_zero.install()


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name in ("engine", "optim", "rules"):
        return import_module(f".{name}", __name__)
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME[name], __name__), name)
    return value
