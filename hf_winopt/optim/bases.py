"""Which optimizers Win can go around, and in which words the others are refused."""

from __future__ import annotations

import inspect

from torch.optim import Optimizer

from .base import RuleOptimizer
from .parts import Parts

_OWN_POINT = {
    "LBFGS": "evaluates the loss several times a step, at points of its own",
    "SAM": "takes a second gradient at a point of its own",
    "ScheduleFree": "keeps the weights at a point of its own, between two averages",
    "LOMO": "steps during the backward pass, and has no step of its own",
    "AliG": "needs the loss itself in its step",
}
"""Part of a class's name -> why Win cannot go around it: the gradient must be the model's own, at the weights."""


def refuse_base(base: object) -> None:
    """
    Raises:
        TypeError: no optimizer.
        ValueError: an optimizer that Win cannot go around; says why, and what would be right.
    """
    if not isinstance(base, Optimizer):
        made = " (make one of it first: Win(AdamW(params)), not Win(AdamW))" if isinstance(base, type) else ""
        raise TypeError(f"base must be a torch.optim.Optimizer; got {base!r}{made}")
    name = type(base).__name__
    if isinstance(getattr(base, "optimizer", None), Optimizer) and name == "AcceleratedOptimizer":
        raise ValueError("base must be an optimizer before accelerator.prepare(): prepare the Win around it instead")
    if isinstance(base, RuleOptimizer):
        raise ValueError(f"base must be another's optimizer; ours have Win in their step: {name}(acceleration='win')")
    if isinstance(base, Parts):
        raise ValueError("base must be one optimizer, not several: put Win around each part that is to have it")
    if not {"state", "param_groups"} <= base.state_dict().keys():
        raise ValueError(
            f"base must have a state dict of torch's form; that of {name} has no 'state' and 'param_groups'"
        )
    if (why := _needs_its_own_point(base)) is not None:
        raise ValueError(f"base must take its step with the gradient at the weights as they are; {name} {why}")


def _needs_its_own_point(base: Optimizer) -> str | None:
    mine = [cls.__name__.lower() for cls in type(base).__mro__]
    for part, why in _OWN_POINT.items():
        if any(_is_of(part.lower(), name) for name in mine):
            return why
    if hasattr(base, "first_step") and hasattr(base, "second_step"):
        return _OWN_POINT["SAM"]
    closure = inspect.signature(type(base).step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        return "asks for a closure in its step, and evaluates it at points of its own"
    return None


def _is_of(part: str, name: str) -> bool:
    """Kin end in the name, and others have a short one in the middle of a word; the long ones stand anywhere."""
    return part in name if part in ("lbfgs", "schedulefree") else name.endswith(part)
