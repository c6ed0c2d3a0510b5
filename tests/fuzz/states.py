"""State dicts with one thing wrong, each sort of it by name, and such as differ without being wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from hf_winopt.optim.checkpoint import FORM
from hf_winopt.optim.options import OF_TORCH
from tests.fuzz.options import bad, free

StateDict = dict[str, Any]
Draw = st.DrawFn

NOT_A_STATE_DICT = [None, [], (), "state", 3, {"state"}, torch.ones(2), [("state", {}), ("param_groups", [])]]
NO_MAPPING = [None, [], "moments", 3, torch.ones(2), {0}]
NO_GROUPS = [None, {}, 3, "ab", [None], [[]], ["params"], [{}], [{"lr": 0.1}], [{"params": None}], [{"params": 3}],
             [{"params": "01"}], [{"params": {0, 1}}], [{"params": [[0], [1]]}], [{"params": [None, 0.5]}]]  # fmt: skip
NO_STEP = [None, -1, -1.0, math.nan, math.inf, "three", "3", b"3", [1], {}, 1j, 10**400, 1e39, torch.tensor(-3.0),
           torch.tensor(math.nan), torch.tensor(math.inf), torch.tensor([1.0, 2.0]), torch.tensor([]),
           torch.tensor(1j), torch.ones((), device="meta"), np.array([1.0, 2.0])]  # fmt: skip
NOT_FINITE = [math.nan, math.inf, -math.inf]


def _one_more_dimension(t: Tensor) -> Tensor:
    return t.unsqueeze(0)


NO_MOMENT: dict[str, Callable[[Tensor], Any]] = {
    "flat": lambda t: torch.zeros(t.numel() + 1),
    "one more dimension": _one_more_dimension,
    "one number": lambda t: torch.zeros(()) if t.ndim else torch.zeros(1),
    "empty": lambda t: torch.zeros(0),
    "int64": lambda t: t.long(),
    "bool": lambda t: t.bool(),
    "complex": lambda t: t.to(torch.complex64),
    "sparse": lambda t: t.to_sparse(),
    "meta": lambda t: t.to("meta"),
    "a word": lambda t: "m",
    "a number": lambda t: 0.5,
    "a list": lambda t: t.tolist(),
    "an array": lambda t: t.float().numpy(),
}


def _key(draw: Draw, state_dict: StateDict) -> Any:
    return draw(st.sampled_from(list(state_dict["state"])))


def _name(draw: Draw, state: dict[str, Any]) -> str:
    return draw(st.sampled_from(sorted(state.keys() - {"step"})))


def _is_coded(state: dict[str, Any], name: str) -> bool:
    """Whether it is codes that have scales, or scales."""
    return name.endswith("_scale") or f"{name}_scale" in state


def _floats(state: dict[str, Any]) -> list[str]:
    return sorted(name for name in state.keys() - {"step"} if state[name].is_floating_point())


# what must be refused ------------------------------------------------------------------------------------------------


def no_state_dict(draw: Draw, name: str, good: StateDict) -> Any:
    return draw(st.sampled_from(NOT_A_STATE_DICT))


def a_key_is_missing(draw: Draw, name: str, good: StateDict) -> StateDict:
    for key in draw(st.sampled_from([["state"], ["param_groups"], ["state", "param_groups"]])):
        del good[key]
    return good


def no_groups(draw: Draw, name: str, good: StateDict) -> StateDict:
    return good | {"param_groups": draw(st.sampled_from(NO_GROUPS))}


def groups_of_other_lengths(draw: Draw, name: str, good: StateDict) -> StateDict:
    groups = good["param_groups"]
    how = draw(st.sampled_from(["one less", "one more", "none", "a parameter less", "a parameter more"]))
    if how == "one less":
        groups.pop()
    elif how == "one more":
        groups.append({**groups[0], "params": [90]})
    elif how == "none":
        groups.clear()
    elif how == "a parameter less":
        groups[0]["params"].pop()
    else:
        groups[0]["params"].append(91)
    return good


def a_bad_option(draw: Draw, name: str, good: StateDict) -> StateDict:
    option = draw(st.sampled_from([each for each in free(name) if each not in (*FORM, *OF_TORCH, "backend")]))
    values = bad(name, option).filter(lambda value: "iterator" not in type(value).__name__)  # torch copies groups
    draw(st.sampled_from(good["param_groups"]))[option] = draw(values)
    return good


def no_states(draw: Draw, name: str, good: StateDict) -> StateDict:
    return good | {"state": draw(st.sampled_from(NO_MAPPING))}


def no_state_of_a_parameter(draw: Draw, name: str, good: StateDict) -> StateDict:
    good["state"][_key(draw, good)] = draw(st.sampled_from(NO_MAPPING))
    return good


def no_step(draw: Draw, name: str, good: StateDict) -> StateDict:
    good["state"][_key(draw, good)]["step"] = draw(st.sampled_from(NO_STEP))
    return good


def no_moment(draw: Draw, name: str, good: StateDict) -> StateDict:
    state = good["state"][_key(draw, good)]
    moment = _name(draw, state)
    state[moment] = NO_MOMENT[draw(st.sampled_from(list(NO_MOMENT)))](state[moment])
    return good


def not_finite(draw: Draw, name: str, good: StateDict) -> StateDict:
    state = good["state"][_key(draw, good)]
    if not _floats(state):
        return no_step(draw, name, good)
    moment = draw(st.sampled_from(_floats(state)))
    dtype = draw(st.sampled_from([state[moment].dtype, torch.bfloat16, torch.float64]))
    state[moment] = values = state[moment].to(dtype, copy=True)
    right = (math.inf,) if moment == "exp_avg_sq" else ()  # of a square that was too large, as with torch
    wrong = [value for value in NOT_FINITE if value not in right]
    values.view(-1)[draw(st.integers(0, values.numel() - 1))] = draw(st.sampled_from(wrong))
    return good


def not_finite_in_float32(draw: Draw, name: str, good: StateDict) -> StateDict:
    state = good["state"][_key(draw, good)]
    floats = [each for each in _floats(state) if each != "exp_avg_sq"]
    if not floats:
        return no_step(draw, name, good)
    moment = draw(st.sampled_from(floats))
    largest = torch.finfo(state[moment].dtype).max
    state[moment] = state[moment].double()
    state[moment].view(-1)[0] = 1e39 if largest < 1e39 else math.inf
    return good


def a_negative_square(draw: Draw, name: str, good: StateDict) -> StateDict:
    state = good["state"][_key(draw, good)]
    if "exp_avg_sq" not in state:
        return not_finite(draw, name, good)
    squares = "exp_avg_sq_scale" if "exp_avg_sq_scale" in state else "exp_avg_sq"
    state[squares].view(-1)[0] = draw(st.sampled_from([-1.0, -1e-30]))
    return good


def codes_of_another_level(draw: Draw, name: str, good: StateDict) -> StateDict:
    """Or in another type, or with scales of another shape."""
    states = [state for state in good["state"].values() if any(map(partial(_is_coded, state), state))]
    if not states:
        return no_moment(draw, name, good)
    state = draw(st.sampled_from(states))
    moment = draw(st.sampled_from(sorted(each for each in state if f"{each}_scale" in state)))
    how = draw(st.sampled_from(["float", "other codes", "scales"]))
    if how == "float":
        state[moment] = state[moment].to(draw(st.sampled_from([torch.float32, torch.bfloat16, torch.int64])))
    elif how == "other codes":
        state[moment] = state[moment].to(torch.int8 if moment == "exp_avg_sq" else torch.uint8)
    else:
        scales = state[f"{moment}_scale"]
        state[f"{moment}_scale"] = draw(st.sampled_from([scales[:1], scales.view(-1), scales.int(), scales * math.nan]))
    return good


REFUSED = [
    no_state_dict, a_key_is_missing, no_groups, groups_of_other_lengths, a_bad_option, no_states,
    no_state_of_a_parameter, no_step, no_moment, not_finite, not_finite_in_float32, a_negative_square,
    codes_of_another_level,
]  # fmt: skip

# what differs and is not wrong ---------------------------------------------------------------------------------------


def more_keys(draw: Draw, name: str, good: StateDict) -> StateDict:
    good["epoch"] = 3
    good["param_groups"][0] |= {"initial_lr": 0.1, "note": "mine", 7: None}
    for state in good["state"].values():
        state |= {"max_exp_avg_sq": torch.ones(3), "note": "mine"}
    good["state"] |= {99: {"step": "of nobody"}, "best_loss": 0.5}
    return good


def fewer_states(draw: Draw, name: str, good: StateDict) -> StateDict:
    """Of a parameter, or of all; or some of the moments, which then all start anew."""
    how = draw(st.sampled_from(["none", "not of one", "not all of one"]))
    if how == "none":
        return good | {"state": {}}
    key = _key(draw, good)
    if how == "not of one":
        del good["state"][key]
    else:
        state = good["state"][key]
        del state[
            draw(st.sampled_from(sorted(name for name in state.keys() - {"step"} if not name.endswith("_scale"))))
        ]
    return good


def an_older_format(draw: Draw, name: str, good: StateDict) -> StateDict:
    """torch counted in ints once; and a group may know fewer options."""
    for state in good["state"].values():
        how = draw(st.sampled_from(["int", "float", "none", "of one element", "float64", "huge", "fraction"]))
        count = float(state.pop("step"))
        forms = {"int": int(count), "float": count, "of one element": torch.tensor([[count]]),
                 "float64": torch.tensor(count, dtype=torch.float64), "huge": 1e30, "fraction": 0.5}  # fmt: skip
        if how in forms:
            state["step"] = forms[how]
    for group in good["param_groups"]:
        for option in draw(st.lists(st.sampled_from(sorted(group.keys() - {"params"})), unique=True)):
            del group[option]
        if group.get("nesterov"):
            group |= {"momentum": 0.9, "dampening": 0.0}
    return good


def other_names(draw: Draw, name: str, good: StateDict) -> StateDict:
    """Parameters by names, as in what is gathered from many processes."""
    named = {key: f"module.{key}" for group in good["param_groups"] for key in group["params"]}
    for group in good["param_groups"]:
        group["params"] = tuple(named[key] for key in group["params"])
    return good | {"state": {named[key]: state for key, state in good["state"].items()}}


def other_types(draw: Draw, name: str, good: StateDict) -> StateDict:
    """Moments in another type and layout; sequences as lists."""
    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
    for state in good["state"].values():
        for moment in [each for each in state.keys() - {"step"} if not _is_coded(state, each)]:
            laid = state[moment].transpose(0, -1).contiguous().transpose(0, -1) if state[moment].ndim else state[moment]
            state[moment] = torch.nn.Parameter(laid.to(dtype))
    for group in good["param_groups"]:
        group |= {option: list(value) for option, value in group.items() if isinstance(value, tuple)}
    return good


HARMLESS = [fewer_states, an_older_format, other_types, other_names, more_keys]
"""In the order in which they can follow each other."""
