"""A plan is made anew when a parameter, its state, its rule or its gradient is not as it was."""

from __future__ import annotations

import copy

import pytest
import torch

from tests.engine.triton.stepping import assert_same, make, train


def moved_parameter(params, optimizer):
    params[0].data = params[0].data.clone()


def moved_state(params, optimizer):
    for state in optimizer.state.values():
        for name in state:
            state[name] = state[name].clone()


def moved_state_in_place(params, optimizer):
    """As who moves what is large, and not the step counts."""
    for state in optimizer.state.values():
        for name, value in state.items():
            if name != "step":
                value.data = value.data.clone()


def moved_one_moment_in_place(params, optimizer):
    momentum = list(optimizer.state[params[1]].values())[1]
    momentum.data = momentum.data.clone()


def other_rule(params, optimizer):
    optimizer.param_groups[0]["acceleration"] = "win2"


def reloaded(params, optimizer):
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


def other_layout(params, optimizer):
    params[0].data = params[0].data.t().contiguous().t()


def narrowed(params, optimizer):
    params[1].data = params[1].data[:4]
    for name, value in optimizer.state[params[1]].items():
        if name != "step":
            optimizer.state[params[1]][name] = value[:4].clone()


def regrouped(params, optimizer):
    first, second = optimizer.param_groups
    second["params"].append(first["params"].pop())


def step_of_another_type(params, optimizer):
    for state in optimizer.state.values():
        state["step"] = torch.tensor(int(state["step"]))


def more_parameters(params, optimizer):
    params.append(torch.nn.Parameter(torch.ones(3).to(params[0])))
    optimizer.add_param_group({"params": params[-1:], "lr": 1e-3, "weight_decay": 0.3})


CHANGES = [
    moved_parameter, moved_state, moved_state_in_place, moved_one_moment_in_place, other_rule, reloaded, other_layout,
    narrowed, regrouped, step_of_another_type, more_parameters,
]  # fmt: skip


@pytest.mark.parametrize("name", ["adamw_win", "lamb", "sgd_win", "adan"])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.filterwarnings("ignore:stepped by the slower eager engine")
def test_what_moves_is_noticed(change, name, device):
    both = []
    for backend in ("triton", "eager"):
        params, optimizer = make(device, name, backend)
        optimizer.param_groups[0]["params"] = params[:1]
        optimizer.add_param_group({"params": params[1:], "lr": 3e-3})
        if change is regrouped:
            optimizer.param_groups[0]["params"], optimizer.param_groups[1]["params"] = params[:], []
        train(params, optimizer, 0, 3)
        old = [value for state in optimizer.state.values() for value in state.values()]  # no address is used again
        change(params, optimizer)
        train(params, optimizer, 3, 6)
        both.append(params)
        del old
    assert_same(*both)
