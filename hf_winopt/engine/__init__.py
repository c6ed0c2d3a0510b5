"""How a rule runs over a list of tensors. Each engine is a module with `step(rule, works)`; `triton` has plans."""

from .dispatch import ACCELERATORS, BACKENDS, DTYPES, choose, has_gaps, resolve, step, triton_lacks
from .forms import ANYWHERE, AT_A_KNOWN_PLACE, Forms, addresses, places
from .layout import blocks_per_row, in_blocks, out_of_blocks, row_length, scales_in_blocks
from .memory import has_no_address, has_values, reaches_beyond
from .shards import (
    PLAIN,
    any_sharded,
    cuts_rows_only,
    is_sharded,
    like,
    local,
    local_grad,
    mesh_of,
    placed_like,
    sharing,
)
from .work import Work, compute_dtype, in_place

__all__ = [
    "ACCELERATORS",
    "ANYWHERE",
    "AT_A_KNOWN_PLACE",
    "BACKENDS",
    "DTYPES",
    "PLAIN",
    "Forms",
    "Work",
    "addresses",
    "any_sharded",
    "blocks_per_row",
    "choose",
    "compute_dtype",
    "cuts_rows_only",
    "has_gaps",
    "has_no_address",
    "has_values",
    "in_blocks",
    "in_place",
    "is_sharded",
    "like",
    "local",
    "local_grad",
    "mesh_of",
    "out_of_blocks",
    "placed_like",
    "places",
    "reaches_beyond",
    "resolve",
    "row_length",
    "scales_in_blocks",
    "sharing",
    "step",
    "triton_lacks",
]
