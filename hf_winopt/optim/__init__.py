"""The optimizers as `torch.optim.Optimizer` classes, and the table of their names."""

from .adal import AdaL
from .adam import LAMB, Adam, AdamW
from .adan import Adan
from .base import RuleOptimizer
from .nadam import NAdamW
from .registry import OPTIMIZERS, Row, create_optimizer
from .sgd import SGD

__all__ = [
    "LAMB",
    "OPTIMIZERS",
    "SGD",
    "AdaL",
    "Adam",
    "AdamW",
    "Adan",
    "NAdamW",
    "Row",
    "RuleOptimizer",
    "create_optimizer",
]
