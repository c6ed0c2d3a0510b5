"""How a rule runs over a list of tensors. Each engine is a module with `step(rule, works)`; `triton` has plans."""

from .dispatch import ACCELERATORS, BACKENDS, DTYPES, reason_against_triton, resolve, step, triton_lacks
from .work import Work, compute_dtype

__all__ = [
    "ACCELERATORS",
    "BACKENDS",
    "DTYPES",
    "Work",
    "compute_dtype",
    "reason_against_triton",
    "resolve",
    "step",
    "triton_lacks",
]
