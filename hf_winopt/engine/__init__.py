"""How a rule runs over a list of tensors. Each engine is a module with `step(rule, works)`; `triton` has plans."""

from .dispatch import BACKENDS, reason_against_triton, resolve, step
from .work import Work, compute_dtype

__all__ = ["BACKENDS", "Work", "compute_dtype", "reason_against_triton", "resolve", "step"]
