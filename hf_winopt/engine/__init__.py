"""How a rule runs over a list of tensors. Each engine is a module with `step(rule, works)`."""

from .dispatch import BACKENDS, step
from .work import Work, compute_dtype

__all__ = ["BACKENDS", "Work", "compute_dtype", "step"]
