"""The space of rules: every combination, its refusals, its costs, and what a pure function promises."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
import torch

from hf_winopt.rules import ACCELERATIONS, DECAYS, OFF, TRANSFORMS, Rule, apply, coefficients
from hf_winopt.rules.transforms import agr
from tests.oracle import Spec
from tests.problems import follows_oracle, optimizer_of

BETAS = {"adam": (0.9, 0.999), "adan": (0.98, 0.92, 0.99)}
NUMBERS = {"weight_decay": 0.1, "weight_decay_gamma": 0.99}
ALL = [
    point
    for point in itertools.product(
        TRANSFORMS, ("adam", "adan", "momentum", "nesterov"), ACCELERATIONS, DECAYS, (False, True)
    )
    if not (point[2] != "none" and point[3] == "decoupled")
]


def spec_of(rule: Rule, **numbers) -> Spec:
    sgd = rule.moments in ("momentum", "nesterov")
    return Spec(
        moments="sgd" if sgd else rule.moments,
        transform=rule.transform,
        acceleration=rule.acceleration,
        decay=rule.decay,
        trust_ratio=rule.trust_ratio,
        nesterov=rule.moments == "nesterov",
        betas=BETAS.get(rule.moments, (0.9, 0.999)),
        **numbers,
    )


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_every_combination_follows_the_oracle(transform):
    points = [point for point in ALL if point[0] == transform]
    assert len(points) == 80
    for point in points:
        rule = Rule(*point)
        options = {"betas": BETAS.get(rule.moments, (0.9, 0.999)), **NUMBERS}
        follows_oracle(
            partial(optimizer_of, rule, **options),
            spec_of(rule, **NUMBERS),
            torch.float64,
            steps=8,
            shapes=((3, 4), (5,), ()),
        )


@pytest.mark.parametrize("acceleration", ["win", "win2"])
def test_decoupled_decay_is_refused_under_acceleration(acceleration):
    with pytest.raises(ValueError, match=r"decay='decoupled'.*proximal"):
        Rule(acceleration=acceleration, decay="decoupled")


@pytest.mark.parametrize("choice", ["transform", "moments", "acceleration", "decay"])
def test_unknown_choices_are_refused_by_name(choice):
    with pytest.raises(ValueError, match=rf"{choice} must be one of .*; got 'wni'"):
        Rule(**{choice: "wni"})


@pytest.mark.parametrize("acceleration", ["win", "win2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_step_at_rate_zero_changes_no_bit(acceleration, dtype):
    """How a warm-up starts, and how torch.distributed.checkpoint makes the state."""
    rule = Rule(acceleration=acceleration, decay="proximal")
    hyper = {"lr": 0.0, "weight_decay": 0.1, "betas": (0.9, 0.999), "eps": 1e-8, "reckless_steps": (3, 7)}
    z = torch.randn(1000, dtype=dtype)
    state = {name: torch.zeros_like(z) for name in rule.state_names}
    new_z, new_state = apply(rule, coefficients(rule, hyper, 1), z, torch.randn_like(z), state)
    assert torch.equal(new_z, z)
    for name in rule.movement.state_names:
        assert not new_state[name].any(), name


def test_nothing_is_modified_but_what_out_names():
    for point in ALL[::7]:
        rule = Rule(*point)
        hyper = {
            "lr": 0.1, "weight_decay": 0.1, "betas": BETAS.get(rule.moments, (0.9, 0.999)), "eps": 1e-8,
            "reckless_steps": (2, 8), "momentum": 0.9, "dampening": 0.0,
        }  # fmt: skip
        c = {**coefficients(rule, hyper, 3), "abs_sum": 10.0, "ratio": 0.7}
        z, g = torch.randn(50), torch.randn(50)
        state = {name: torch.rand(50) for name in rule.state_names}
        before = {name: value.clone() for name, value in {"z": z, "g": g, **state}.items()}
        new_z, new_state = apply(rule, c, z, g, state)
        assert set(new_state) == set(rule.state_names)
        for name, value in {"z": z, "g": g, **state}.items():
            assert torch.equal(value, before[name]), (point, name)
        apply(rule, c, z, g, state, {"z": z, **state})
        for name, value in {"z": new_z, **new_state}.items():
            assert torch.equal({"z": z, **state}[name], value), (point, name)


def test_bytes_are_those_of_the_formulas():
    """Read and written per float32 parameter: the parameter, its gradient, each state, and LAMB's second pass."""
    win = {"acceleration": "win", "decay": "proximal"}
    win2 = {"acceleration": "win2", "decay": "proximal"}
    assert Rule().bytes_per_param() == 28
    assert Rule(**win).bytes_per_param() == 36
    assert Rule(**win2).bytes_per_param() == 44
    assert Rule(moments="adan", decay="proximal").bytes_per_param() == 44
    assert Rule(moments="adan", **win).bytes_per_param() == 52
    assert Rule(moments="momentum", **win).bytes_per_param() == 28
    assert Rule(trust_ratio=True, **win).bytes_per_param() == 52
    assert Rule(transform="agr", **win).bytes_per_param() == 40
    assert Rule(transform="adal", decay="l2").bytes_per_param() == 36
    assert Rule(**win).bytes_per_param(param=2) == 30
    assert Rule(**win2).state_bytes_per_param() == 16


@pytest.mark.parametrize(
    "off", [OFF, torch.tensor(OFF), torch.full((4,), OFF)], ids=["known", "a number", "each its own"]
)
def test_agr_that_is_off_leaves_a_gradient_as_it_is(off):
    g = torch.tensor([1.0, -torch.inf, 0.0, 1e-40])
    assert torch.equal(agr(g, off), g)
