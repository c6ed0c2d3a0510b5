"""How a rule runs over a list of tensors. Each engine is a module with `step(rule, works)`; `triton` has plans."""

from .dispatch import ACCELERATORS, BACKENDS, DTYPES, choose, has_gaps, resolve, step, triton_lacks
from .forms import ANYWHERE, AT_A_KNOWN_PLACE, Forms, addresses, places
from .memory import has_no_address, has_values, reaches_beyond
from .shards import any_sharded, is_sharded, like, local, local_grad, mesh_of, placed_like, sharing
from .work import Work, compute_dtype, lines

__all__ = [
    "ACCELERATORS",
    "ANYWHERE",
    "AT_A_KNOWN_PLACE",
    "BACKENDS",
    "DTYPES",
    "Forms",
    "Work",
    "addresses",
    "any_sharded",
    "choose",
    "compute_dtype",
    "has_gaps",
    "has_no_address",
    "has_values",
    "is_sharded",
    "like",
    "lines",
    "local",
    "local_grad",
    "mesh_of",
    "placed_like",
    "places",
    "reaches_beyond",
    "resolve",
    "sharing",
    "step",
    "triton_lacks",
]
