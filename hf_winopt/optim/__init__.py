"""The optimizers as `torch.optim.Optimizer` classes, and the table of their names."""

from .adal import AdaL
from .adam import LAMB, Adam, AdamW
from .adan import Adan
from .base import RuleOptimizer
from .composed import COMPOSED, Composed
from .muon_adamw import muon
from .nadam import NAdamW
from .parts import Parts
from .registry import OPTIMIZERS, Row, create_optimizer
from .sgd import SGD
from .win import Win

OURS = (RuleOptimizer, Win, Parts)
"""What is ours, by whatever name it was made."""

__all__ = [
    "COMPOSED",
    "LAMB",
    "OPTIMIZERS",
    "OURS",
    "SGD",
    "AdaL",
    "Adam",
    "AdamW",
    "Adan",
    "Composed",
    "NAdamW",
    "Parts",
    "Row",
    "RuleOptimizer",
    "Win",
    "create_optimizer",
    "muon",
]
