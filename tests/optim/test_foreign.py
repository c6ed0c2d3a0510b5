"""A state dict that another optimizer wrote is refused, and who wrote it is told by its look."""

from __future__ import annotations

import copy

import pytest
import torch

from hf_winopt import OPTIMIZERS, create_optimizer

TORCHS = {
    "Adadelta": {}, "Adafactor": {}, "Adagrad": {}, "Adamax": {}, "ASGD": {}, "LBFGS": {}, "RMSprop": {}, "Rprop": {},
    "RMSprop with momentum": {"momentum": 0.9, "centered": True},
}  # fmt: skip
FAMILIES = {"adamw_win": "AdamW", "sgd_win": "SGD", "adan": "Adan", "lamb": "LAMB", "adal": "AdaL", "adam_l2": "Adam"}


def parameters():
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(4, 3)), torch.nn.Parameter(torch.randn(4, 3))]


def written_by(make, steps):
    params = parameters()
    optimizer = make(params)
    for t in range(steps):
        for p in params:
            p.grad = torch.randn(4, 3, generator=torch.Generator().manual_seed(t))
        optimizer.step(lambda: sum(p.detach().sum() for p in params))
    return optimizer.state_dict()


def refused(name, state_dict, who):
    params = parameters()
    optimizer = create_optimizer(name, params)
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(
        ValueError, match=f"must be of {FAMILIES[name]}, .*written by another optimizer, by its look {who}"
    ):
        optimizer.load_state_dict(state_dict)
    assert str(optimizer.state_dict()) == str(before)


@pytest.mark.parametrize("steps", [0, 2], ids=["before its first step", "after some"])
@pytest.mark.parametrize("kind", TORCHS)
@pytest.mark.parametrize("name", FAMILIES)
def test_of_torchs_others(name, kind, steps):
    who = kind.split()[0]
    state_dict = written_by(lambda params: getattr(torch.optim, who)(params, **TORCHS[kind]), steps)
    if (who, steps) == ("Adamax", 0) and name not in ("sgd_win", "adan"):
        create_optimizer(name, parameters()).load_state_dict(state_dict)  # which nothing tells from Adam's
        return
    refused(name, state_dict, "Adam or one like it" if (who, steps) == ("Adamax", 0) else who)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_of_sgd_whose_rate_is_a_thousand_times_adams(momentum):
    """Without momentum it keeps nothing at all: only its options tell."""
    state_dict = written_by(lambda params: torch.optim.SGD(params, lr=0.1, momentum=momentum), 2)
    for name in FAMILIES:
        if name != "sgd_win":
            refused(name, state_dict, "SGD")
    create_optimizer("sgd_win", parameters()).load_state_dict(state_dict)


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize(("name", "other", "who"), [
    ("adan", "adamw_win", "Adam or one like it"), ("adan", "lamb", "Adam or one like it"),
    ("adamw_win", "adan", "Adan"),
    ("adamw_win", "sgd_win", "SGD"), ("sgd_win", "adamw_win", "Adam or one like it"), ("sgd_win", "adan", "Ada"),
    ("adal", "adan_win2", "Adan"),
])  # fmt: skip
def test_of_ours_of_another_family(name, other, who, steps):
    refused(name, written_by(lambda params: create_optimizer(other, params), steps), who)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_of_the_same_family_is_gone_on_from(name):
    """Whatever the acceleration, the transform and the place of the decay."""
    family = OPTIMIZERS[name].rule.moments
    for other, row in OPTIMIZERS.items():
        if row.rule.moments == family:
            for steps in (0, 2):
                state_dict = written_by(lambda params, other=other: create_optimizer(other, params, lr=0.5), steps)
                optimizer = create_optimizer(name, parameters())
                optimizer.load_state_dict(state_dict)
                assert optimizer.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize("kind", ["Adam", "AdamW", "NAdam", "RAdam"])
def test_of_torchs_with_the_same_moments_is_gone_on_from(kind):
    state_dict = written_by(lambda params: getattr(torch.optim, kind)(params, lr=0.5), 2)
    params = parameters()
    optimizer = create_optimizer("adamw_win", params)
    optimizer.load_state_dict(state_dict)
    assert torch.equal(optimizer.state[params[0]]["exp_avg"], state_dict["state"][0]["exp_avg"])


LOOKS = {  # as those that are not to be had here write them
    "bitsandbytes": ({"step": 2, "state1": torch.zeros(4, 3), "state2": torch.zeros(4, 3)}, {"betas": (0.9, 0.95)}),
    "Adafactor": ({"step": 2, "exp_avg_sq_row": torch.zeros(4), "exp_avg_sq_col": torch.zeros(3), "RMS": 0.1},
                  {"eps": (1e-30, 1e-3), "clip_threshold": 1.0}),
    "one that keeps exp_avg": ({"exp_avg": torch.zeros(4, 3)}, {"betas": (0.9, 0.99)}),  # Lion
    "one that keeps exp_avg_sq, z": ({"z": torch.zeros(4, 3), "exp_avg_sq": torch.zeros(4, 3)}, {"betas": (0.9, 0.99)}),
    "Muon": ({"momentum_buffer": torch.zeros(4, 3)}, {"momentum": 0.95, "ns_steps": 5}),
}  # fmt: skip


@pytest.mark.parametrize("who", LOOKS)
def test_of_other_packages(who):
    state, options = LOOKS[who]
    groups = [{"params": [0, 1], "lr": 0.1, "weight_decay": 0.0, **options}]
    state_dict = {"state": {0: state, 1: state}, "param_groups": groups}
    for name in ("adamw_win", "adan", "sgd_win"):
        looks = "SGD|Muon" if who == "Muon" else who
        refused(name, copy.deepcopy(state_dict), f"(an optimizer of )?({looks})")


def test_what_a_state_dict_overrules_is_known():
    saved = written_by(lambda params: create_optimizer("adamw_win", params, lr=0.5, weight_decay=0.3), 2)
    optimizer = create_optimizer("adamw_win2", parameters(), lr=0.1, weight_decay=0.2, betas=(0.9, 0.99))
    optimizer.load_state_dict(saved)
    assert optimizer.overruled == {"weight_decay": (0.2, 0.3), "betas": ((0.9, 0.99), (0.9, 0.999))}
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert optimizer.overruled == {}
