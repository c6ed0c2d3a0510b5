"""How a rule runs over a list of tensors. Each engine is a module with `step(rule, works)`; `triton` has plans."""

from .dispatch import ACCELERATORS, BACKENDS, DTYPES, has_gaps, reason_against_triton, resolve, step, triton_lacks
from .shards import any_sharded, is_sharded, like, local, local_grad, mesh_of, placed_like, sharing
from .work import Work, compute_dtype, lines

__all__ = [
    "ACCELERATORS",
    "BACKENDS",
    "DTYPES",
    "Work",
    "any_sharded",
    "compute_dtype",
    "has_gaps",
    "is_sharded",
    "like",
    "lines",
    "local",
    "local_grad",
    "mesh_of",
    "placed_like",
    "reason_against_triton",
    "resolve",
    "sharing",
    "step",
    "triton_lacks",
]
