"""Whether a measurement fits the device's memory, found out before any of it is taken."""

from __future__ import annotations

import torch

from .. import OPTIMIZERS
from .plan import Plan


def check_memory(plan: Plan) -> None:
    """Refuse a plan that does not fit.

    Raises:
        ValueError: parameters, gradients, torch's two AdamW and the largest optimizer of the plan need more bytes than
            the device has free. Where that is unknown nothing is refused.
    """
    needed, free = needed_bytes(plan), free_bytes(plan.device)
    if free is not None and needed > free:
        raise ValueError(
            f"{plan.model} in {plan.dtype_name} needs {needed / 1e9:.1f} GB on {plan.device} (parameters, gradients, "
            f"the state of torch's AdamW, fused and foreach, and of {_largest(plan)}), and {free / 1e9:.1f} GB are "
            "free; take smaller --shapes, another --dtype, or names with less state (`hf-winopt list`)"
        )


def needed_bytes(plan: Plan) -> int:
    """Bytes of all parameters, gradients and states that are held at one time; small temporaries are not in it."""
    size = plan.dtype.itemsize
    parameters, moments, temporary = 2 * size, 2 * 2 * size, size  # foreach holds the root of all second moments
    return int(plan.elements * (parameters + moments + temporary + OPTIMIZERS[_largest(plan)].state_bytes_per_param))


def free_bytes(device: torch.device) -> int | None:
    """Bytes free on the device; None where nothing tells."""
    if device.type == "cpu":
        try:
            import psutil  # Accelerate needs it, so it is nearly always there
        except ImportError:
            return None
        return int(psutil.virtual_memory().available)
    module = torch.get_device_module(device)
    return int(module.mem_get_info(device)[0]) if hasattr(module, "mem_get_info") else None


def _largest(plan: Plan) -> str:
    return max(plan.names, key=lambda name: OPTIMIZERS[name].state_bytes_per_param)
