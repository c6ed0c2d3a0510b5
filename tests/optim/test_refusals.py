"""Every bad argument is refused with its name, its value and what would be right."""

from __future__ import annotations

import math

import pytest
import torch

from hf_winopt import LAMB, OPTIMIZERS, SGD, AdaL, Adam, AdamW, Adan, create_optimizer
from hf_winopt.optim.registry import name_of

CLASSES = (AdamW, Adam, LAMB, SGD, Adan, AdaL)


def parameter():
    return [torch.nn.Parameter(torch.ones(2, 2))]


BAD = [
    (AdamW, "lr", -1.0, "a finite number >= 0"),
    (AdamW, "lr", math.nan, "a finite number >= 0"),
    (AdamW, "lr", torch.tensor([1.0, 2.0]), "one element"),
    (AdamW, "betas", (0.9,), "2 numbers"),
    (AdamW, "betas", (0.9, 1.0), "2 numbers"),
    (AdamW, "betas", 0.9, "2 numbers"),
    (Adan, "betas", (0.9, 0.99), "3 numbers"),
    (AdamW, "eps", -1e-8, ">= 0"),
    (AdamW, "weight_decay", -0.1, ">= 0"),
    (AdamW, "weight_decay", "0.1", ">= 0"),
    (AdamW, "weight_decay_gamma", 0.0, r"\(0, 1\]"),
    (AdamW, "weight_decay_gamma", 1.1, r"\(0, 1\]"),
    (AdamW, "acceleration", "won", "'none', 'win', 'win2'"),
    (AdamW, "reckless_steps", (2, 0), "two finite numbers > 0"),
    (AdamW, "reckless_steps", 2, "two finite numbers > 0"),
    (AdamW, "decay", "l1", "'l2'"),
    (AdamW, "agr", 1, "True or False"),
    (AdamW, "agr_steps", -5, "a whole number"),
    (AdamW, "agr_steps", 2.5, "a whole number"),
    (AdamW, "max_grad_norm", math.inf, "finite"),
    (AdamW, "maximize", "yes", "True or False"),
    (AdamW, "backend", "cuda", "'auto', 'eager', 'compile'"),
    (SGD, "momentum", 1.0, r"\[0, 1\)"),
    (SGD, "dampening", -0.1, r"\[0, 1\)"),
    (LAMB, "always_adapt", None, "True or False"),
    (Adan, "restart_every", -1, "a whole number"),
    (AdaL, "inverse_sqrt_lr", "no", "True or False"),
]


@pytest.mark.parametrize(("cls", "name", "value", "right"), BAD, ids=str)
def test_bad_options(cls, name, value, right):
    with pytest.raises(ValueError, match=rf"{name} must be .*{right}.*; got "):
        cls(parameter(), **{name: value})


@pytest.mark.parametrize("cls", CLASSES)
def test_bad_options_of_a_group_leave_the_optimizer_as_it_was(cls):
    optimizer = cls(parameter())
    for group, error in (
        ({"params": parameter(), "lr": -1.0}, ValueError),
        ({"params": [torch.nn.Parameter(torch.ones(2, dtype=torch.complex64))]}, TypeError),
    ):
        with pytest.raises(error, match=r"lr must be|dtype"):
            optimizer.add_param_group(group)
        assert len(optimizer.param_groups) == 1


def test_combinations_that_do_not_go_together():
    with pytest.raises(ValueError, match=r"decay='decoupled' does not go with acceleration='win'"):
        AdamW(parameter(), acceleration="win", decay="decoupled")
    with pytest.raises(ValueError, match=r"nesterov=True must come with momentum > 0 and dampening=0"):
        SGD(parameter(), nesterov=True, dampening=0.1)
    with pytest.warns(UserWarning, match="agr_steps has no effect without agr=True"):
        AdamW(parameter(), agr_steps=10)


@pytest.mark.parametrize("cls", CLASSES)
def test_parameters(cls):
    with pytest.raises(ValueError, match="empty parameter list"):
        cls([])
    with pytest.raises(TypeError, match="complex64"):
        cls([torch.nn.Parameter(torch.ones(2, dtype=torch.complex64))])
    with pytest.raises(TypeError):
        cls(torch.ones(2))
    twice = parameter()[0]
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="distinct; got a parameter twice"):
        cls([twice, twice])


def test_a_refused_step_counts_nothing():
    a, b = parameter()[0], parameter()[0]
    optimizer = AdamW([{"params": [a]}, {"params": [b]}], acceleration="win")
    a.grad, b.grad = torch.ones(2, 2), torch.ones(2, 2)
    optimizer.step()
    optimizer.param_groups[1]["decay"] = "decoupled"
    with pytest.raises(ValueError, match="decoupled"):
        optimizer.step()
    assert optimizer.state[a]["step"] == optimizer.state[b]["step"] == 1


@pytest.mark.parametrize("cls", CLASSES)
def test_sparse_gradients_are_refused_before_anything_is_stepped(cls):
    table = torch.nn.Embedding(5, 3, sparse=True)
    dense = torch.nn.Parameter(torch.ones(3))
    optimizer = cls([dense, table.weight])
    (table(torch.tensor([1, 2])) * dense).sum().backward()
    kept = dense.detach().clone()
    with pytest.raises(ValueError, match=rf"{cls.__name__} does not take sparse gradients.*sparse=False"):
        optimizer.step()
    assert torch.equal(dense, kept) and not optimizer.state


def test_unknown_names_come_with_near_ones():
    with pytest.raises(ValueError, match=r"unknown optimizer 'adamwin'.*did you mean .*adamw_win.*Known names: .*adal"):
        create_optimizer("adamwin", parameter())
    with pytest.raises(ValueError, match="Known names"):
        create_optimizer("zzz", parameter())


def test_unknown_options_come_with_near_ones():
    with pytest.raises(TypeError, match=r"adamw_win has no option 'weight_dcay'; did you mean weight_decay"):
        create_optimizer("adamw_win", parameter(), weight_dcay=0.1)
    with pytest.raises(TypeError, match=r"adal has no option 'agr'.*inverse_sqrt_lr"):
        create_optimizer("adal", parameter(), agr=True)


def test_a_name_cannot_be_contradicted_but_its_defaults_can():
    with pytest.raises(ValueError, match=r"adamw_win is AdamW with acceleration='win'; got acceleration='none'"):
        create_optimizer("adamw_win", parameter(), acceleration="none")
    faded = create_optimizer("adamw_d", parameter(), weight_decay_gamma=0.9)
    assert faded.param_groups[0]["weight_decay_gamma"] == 0.9
    assert create_optimizer("adamw_d", parameter()).param_groups[0]["weight_decay_gamma"] == 0.99999


def test_the_table_is_complete():
    for name, row in OPTIMIZERS.items():
        assert row.name == name and row.when and row.paper and row.formula
        assert len(row.when) < 80


def test_an_optimizer_is_known_by_its_name_again():
    for name in OPTIMIZERS:
        assert name_of(create_optimizer(name, parameter(), lr=1e-2)) == name
    assert name_of(AdamW(parameter(), acceleration="win", weight_decay=0.3)) == "adamw_win"
    assert name_of(AdamW(parameter())) is None
