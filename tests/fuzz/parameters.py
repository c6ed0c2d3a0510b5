"""Parameters of every shape, type and layout that can be trained, and such as must be refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import Parameter

from hf_winopt import create_optimizer
from hf_winopt.optim import RuleOptimizer
from tests.fuzz.options import chosen
from tests.fuzz.training import gradient

SHAPES = [(), (0,), (1,), (5,), (17,), (1, 1), (3, 4), (7, 1), (3, 0), (2, 3, 2), (2, 3, 2, 2), (60, 70)]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
LAYOUTS = ["contiguous", "transposed", "strided", "channels_last"]


def laid_out(tensor: Tensor, layout: str) -> Tensor:
    """The same values; as they are where the shape does not know this layout."""
    if layout == "transposed" and tensor.ndim >= 2:
        return tensor.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "strided":
        return torch.stack([tensor, tensor], dim=-1)[..., 0]
    if layout == "channels_last" and tensor.ndim == 4:
        return tensor.contiguous(memory_format=torch.channels_last)
    return tensor


@st.composite
def parameters(draw: st.DrawFn, dtypes: list[torch.dtype] = DTYPES, least: int = 1) -> list[Parameter]:
    """One to four parameters, some of them frozen."""
    drawn = []
    for i in range(draw(st.integers(least, 4))):
        shape, dtype = draw(st.sampled_from(SHAPES)), draw(st.sampled_from(dtypes))
        values = gradient(torch.empty(shape, dtype=dtype), 1.0, 1000 + i)
        trained = draw(st.sampled_from([True, True, True, False]))
        drawn.append(Parameter(laid_out(values, draw(st.sampled_from(LAYOUTS))), requires_grad=trained))
    return drawn


@st.composite
def optimizers(draw: st.DrawFn, name: str, among: str = "sane") -> RuleOptimizer:
    """An optimizer of this name: its options, one or two groups with options of their own, named or not."""
    options = draw(chosen(name, among))
    params = draw(parameters())
    how = draw(st.sampled_from(["list", "named", "groups", "groups"]))
    if how == "list":
        return create_optimizer(name, params, **options)
    if how == "named":
        return create_optimizer(name, [(f"p{i}", p) for i, p in enumerate(params)], **options)
    cut = draw(st.integers(0, len(params)))
    groups = [{"params": part, **draw(chosen(name, among, of_a_group=True))} for part in (params[:cut], params[cut:])]
    for group in groups:
        if {**options, **group}.get("nesterov"):  # goes with momentum and without dampening only
            group |= {"momentum": 0.9, "dampening": 0.0}
    return create_optimizer(name, groups, **options)


def _weight(dtype: torch.dtype = torch.float32) -> Parameter:
    return Parameter(torch.ones(2, 3).to(dtype), requires_grad=dtype.is_floating_point or dtype.is_complex)


def _twice() -> list[Parameter]:
    return [_weight()] * 2


NO_PARAMETERS: dict[str, Callable[[], Any]] = {
    "one tensor, not a list of it": lambda: _weight(),
    "none at all": lambda: [],
    "no tensor": lambda: ["weight"],
    "a number": lambda: [0.5],
    "None": lambda: [_weight(), None],
    "an array": lambda: [torch.ones(3).numpy()],
    "not a leaf": lambda: [_weight() * 2],
    "twice": _twice,
    "named and not": lambda: [("weight", _weight()), _weight()],
    "expanded": lambda: [Parameter(torch.ones(3, 1).expand(3, 4))],
    "complex64": lambda: [_weight(torch.complex64)],
    "float8": lambda: [_weight(torch.float8_e4m3fn)],
    "sparse": lambda: [Parameter(torch.eye(3).to_sparse())],
    "a group that is a list, after one that is not": lambda: [{"params": [_weight()]}, [_weight()]],
    "a group that is a parameter": lambda: [{"params": [_weight()]}, _weight()],
    "a group after a parameter": lambda: [_weight(), {"params": [_weight()]}],
    "a group without params": lambda: [{"lr": 0.1}],
    "a group whose params are None": lambda: [{"params": None}],
    "a group whose params are a number": lambda: [{"params": 3}],
    "a group whose params are a set": lambda: [{"params": {_weight()}}],
    "a group with what cannot be trained": lambda: [{"params": [_weight()]}, {"params": [_weight(torch.complex64)]}],
    "in two groups": lambda: [{"params": group} for group in zip(_twice())],
}  # fmt: skip
"""What an optimizer must refuse as `params`."""

NO_GROUPS: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "a list": lambda: [_weight()],
    "a parameter": lambda: _weight(),
    "a word": lambda: "params",
    "empty": lambda: {},
    "without params": lambda: {"lr": 0.1},
    **{
        f"params: {what}": lambda make=make: {"params": make()}
        for what, make in NO_PARAMETERS.items()
        if what not in ("one tensor, not a list of it", "none at all", "in two groups")
        and not what.startswith("a group")
    },
}
"""What `add_param_group` must refuse."""
