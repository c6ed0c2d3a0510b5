"""What torch's tests ask of every optimizer of its own, asked of each class here on each engine.

What stands elsewhere is not here again: copies, AMP, closures, sparse gradients, bad options, other libraries' state.
"""

from __future__ import annotations

import copy
import io
import warnings

import pytest
import torch
from torch.optim import lr_scheduler
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from hf_winopt import LAMB, SGD, AdaL, Adam, AdamW, Adan

pytestmark = [pytest.mark.usefixtures("not_compiled"), pytest.mark.filterwarnings("ignore:stepped by the slower")]

CLASSES = [AdamW, Adam, LAMB, SGD, Adan, AdaL]
ENGINES = ["eager", "compile", "triton"]
each = pytest.mark.parametrize("cls", CLASSES)
on_every_engine = pytest.mark.parametrize("backend", ENGINES)


class Problem:
    """A linear layer, a batch, and the closure that torch's optimizers are tested with."""

    def __init__(self, contiguous=True, dtype=torch.float32):
        torch.manual_seed(0)
        weight = torch.randn(10, 5, dtype=dtype) if contiguous else torch.randn(10, 5, 2, dtype=dtype)[..., 0]
        bias = torch.randn(10, dtype=dtype) if contiguous else torch.randn(10, 2, dtype=dtype)[..., 0]
        self.weight, self.bias = torch.nn.Parameter(weight), torch.nn.Parameter(bias)
        self.input = torch.randn(5, dtype=dtype)
        self.params = [self.weight, self.bias]
        self.named = [("weight", self.weight), ("bias", self.bias)]

    def loss(self):
        return (self.weight.mv(self.input) + self.bias).pow(2).sum()

    def closure(self, optimizer):
        optimizer.zero_grad()
        loss = self.loss()
        loss.backward()
        return loss

    def train(self, optimizer, steps):
        for _ in range(steps):
            optimizer.step(lambda: self.closure(optimizer))
        return [p.detach().clone() for p in self.params]


@each
@on_every_engine
@pytest.mark.parametrize("contiguous", [True, False])
def test_it_goes_the_right_way(cls, backend, contiguous):
    problem = Problem(contiguous)
    rate = 1e-3 if cls is SGD else 1e-2
    optimizer = cls(problem.params, lr=rate, backend=backend)
    before = problem.loss().item()
    problem.train(optimizer, 10)
    assert problem.loss().item() < before


@each
@on_every_engine
@pytest.mark.parametrize("schedule", [
    lambda o: lr_scheduler.StepLR(o, step_size=3, gamma=0.9), lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    lambda o: lr_scheduler.LinearLR(o), lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 4),
    lambda o: lr_scheduler.SequentialLR(o, [lr_scheduler.ConstantLR(o), lr_scheduler.ExponentialLR(o, 0.9)], [3]),
    lambda o: lr_scheduler.PolynomialLR(o, 20), lambda o: lr_scheduler.CyclicLR(o, 1e-4, 1e-3, 4, cycle_momentum=True),
    lambda o: lr_scheduler.OneCycleLR(o, 1e-3, total_steps=20),
], ids=["step", "exponential", "linear", "restarts", "sequential", "polynomial", "cyclic", "one cycle"])  # fmt: skip
def test_with_a_schedule_of_each_group(cls, backend, schedule):
    problem = Problem()
    groups = [{"params": [problem.weight]}, {"params": [problem.bias], "lr": 1e-4}]
    optimizer = cls(groups, lr=1e-3, backend=backend)
    stepping, before = schedule(optimizer), problem.loss().item()
    for _ in range(10):
        problem.train(optimizer, 1)
        stepping.step()
    assert problem.loss().item() < before


@each
def test_on_a_plateau(cls):
    problem = Problem()
    optimizer = cls(problem.params, lr=1e-3)
    schedule = lr_scheduler.ReduceLROnPlateau(optimizer, patience=1)
    for _ in range(6):
        problem.train(optimizer, 1)
        schedule.step(1.0)
    assert optimizer.param_groups[0]["lr"] < 1e-3


@each
@on_every_engine
@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_rate_in_a_tensor_is_the_same_rate_and_is_not_changed(cls, backend, shape):
    found = []
    for rate in (1e-3, torch.full(shape, 1e-3)):
        problem = Problem()
        optimizer = cls(problem.params, lr=rate, backend=backend)
        found.append(problem.train(optimizer, 5))
        if isinstance(rate, torch.Tensor):
            schedule = lr_scheduler.ExponentialLR(optimizer, 0.5)
            assert optimizer.param_groups[0]["lr"] is rate and torch.equal(rate, torch.full(shape, 1e-3))
            schedule.step()
            assert optimizer.param_groups[0]["lr"] is rate and rate.item() == pytest.approx(5e-4)
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-7)


@each
@on_every_engine
def test_groups_with_rates_and_decay_of_their_own(cls, backend):
    """A group with a rate of 0 stands still, decayed or not; decay shows only where it is."""
    problem = Problem()
    groups = [{"params": [problem.weight], "lr": 0.0, "weight_decay": 0.5}, {"params": [problem.bias]}]
    optimizer = cls(groups, lr=1e-2, weight_decay=0.0, backend=backend)
    weight, bias = (p.detach().clone() for p in problem.params)
    problem.train(optimizer, 3)
    assert torch.equal(problem.weight, weight) and not torch.equal(problem.bias, bias)
    found = []
    for decay in (0.0, 0.5):
        problem = Problem()
        groups = [{"params": [problem.weight], "weight_decay": decay}, {"params": [problem.bias], "weight_decay": 0.0}]
        optimizer = cls(groups, lr=1e-2, backend=backend)
        for p in problem.params:
            p.grad = torch.ones_like(p)
        optimizer.step()
        found.append([p.detach().clone() for p in problem.params])
    assert not torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])


@each
@on_every_engine
def test_without_gradients_a_step_does_nothing(cls, backend):
    problem = Problem()
    optimizer = cls(problem.params, weight_decay=0.1, backend=backend)
    before = copy.deepcopy((problem.params, optimizer.state_dict()))
    optimizer.step()
    assert all(map(torch.equal, problem.params, before[0])) and optimizer.state_dict() == before[1]


@each
@on_every_engine
def test_gradients_of_zero_without_decay_change_no_parameter(cls, backend):
    problem = Problem()
    optimizer = cls(problem.params, weight_decay=0.0, backend=backend)
    before = [p.detach().clone() for p in problem.params]
    for p in problem.params:
        p.grad = torch.zeros_like(p)
    for _ in range(3):
        optimizer.step()
    assert all(map(torch.equal, problem.params, before))
    assert all(optimizer.state[p]["step"].item() == 3 for p in problem.params)


@each
def test_it_can_be_printed(cls):
    problem = Problem()
    text = str(cls([{"params": [problem.weight], "lr": 0.25}, {"params": [problem.bias]}], weight_decay=0.125))
    assert text.startswith(f"{cls.__name__} (") and "Parameter Group 1" in text
    assert "lr: 0.25" in text and "weight_decay: 0.125" in text


@each
@on_every_engine
@pytest.mark.parametrize("named", [(False, False), (True, True), (False, True), (True, False)], ids=str)
def test_what_is_loaded_steps_as_what_was_saved(cls, backend, named):
    """With names of parameters on one side, on both, or on none; as rates change."""
    one, other = Problem(), Problem()
    mine = cls(one.named if named[0] else one.params, lr=1e-3, backend=backend)
    schedule = lr_scheduler.ExponentialLR(mine, 0.9)
    one.train(mine, 3)
    schedule.step()
    theirs = cls(other.named if named[1] else other.params, lr=0.5, backend=backend)
    for p, q in zip(one.params, other.params):
        q.data.copy_(p)
    state_dict = mine.state_dict()
    assert ("param_names" in state_dict["param_groups"][0]) is named[0]
    if named[0] and not named[1]:  # as torch's: names go with the checkpoint
        theirs.load_state_dict(state_dict)
        assert theirs.param_groups[0]["param_names"] == ["weight", "bias"]
    else:
        theirs.load_state_dict(state_dict)
    assert all(map(torch.equal, one.train(mine, 3), other.train(theirs, 3)))
    a, b = mine.state_dict(), theirs.state_dict()
    for group_a, group_b in zip(a["param_groups"], b["param_groups"]):
        assert {k: v for k, v in group_a.items() if k != "param_names"} == \
            {k: v for k, v in group_b.items() if k != "param_names"}  # fmt: skip
    for key, state in a["state"].items():
        assert all(torch.equal(value, b["state"][key][name]) for name, value in state.items())


@each
def test_a_state_dict_is_the_optimizers_own_and_what_was_loaded_is_not(cls):
    problem = Problem()
    optimizer = cls(problem.params)
    problem.train(optimizer, 2)
    state_dict = optimizer.state_dict()
    first = optimizer.state[problem.weight]
    assert all(state_dict["state"][0][name] is value for name, value in first.items())
    other = cls(Problem().params)
    other.load_state_dict(state_dict)
    loaded = other.state[other.param_groups[0]["params"][0]]
    assert not any(loaded[name].data_ptr() == value.data_ptr() for name, value in first.items())


@each
def test_an_older_state_dict_lacks_newer_options(cls):
    problem = Problem()
    optimizer = cls(problem.params, maximize=True)
    problem.train(optimizer, 2)
    state_dict = copy.deepcopy(optimizer.state_dict())
    for group in state_dict["param_groups"]:
        for option in ("maximize", "skip_nonfinite", "max_grad_norm", "weight_decay_gamma", "reckless_steps"):
            del group[option]
    other = cls(Problem().params)
    other.load_state_dict(state_dict)
    assert other.param_groups[0]["maximize"] is False and other.param_groups[0]["reckless_steps"] == (2, 8)


@each
def test_a_file_with_weights_only_is_equal(cls):
    problem = Problem()
    optimizer = cls(problem.params, lr=torch.tensor(1e-3))
    problem.train(optimizer, 3)
    buffer = io.BytesIO()
    torch.save(optimizer.state_dict(), buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=True)
    other = cls(Problem().params)
    other.load_state_dict(loaded)
    assert str(other.state_dict()) == str(optimizer.state_dict())


@each
@on_every_engine
def test_a_step_count_that_is_no_tensor_is_loaded(cls, backend):
    problem, twin = Problem(), Problem()
    optimizer, other = (cls(each.params, backend=backend) for each in (problem, twin))
    problem.train(optimizer, 2)
    state_dict = copy.deepcopy(optimizer.state_dict())
    for state in state_dict["state"].values():
        state["step"] = state["step"].item()
    other.load_state_dict(state_dict)
    for p, q in zip(problem.params, twin.params):
        q.data.copy_(p)
    assert all(map(torch.equal, problem.train(optimizer, 2), twin.train(other, 2)))


@each
def test_hooks_of_steps_run_in_order_everybodys_too(cls):
    problem, seen = Problem(), []
    optimizer = cls(problem.params)

    def says(word):
        return lambda *_: seen.append(word)

    handles = [
        register_optimizer_step_pre_hook(says("all before")),
        register_optimizer_step_post_hook(says("all after")),
        optimizer.register_step_pre_hook(says("before")),
        optimizer.register_step_post_hook(says("after")),
    ]
    problem.train(optimizer, 1)
    assert seen == ["all before", "before", "after", "all after"]
    for handle in handles:
        handle.remove()
    problem.train(optimizer, 1)
    assert len(seen) == 4


@each
def test_a_hook_can_change_the_arguments_of_a_step(cls):
    problem = Problem()
    optimizer = cls(problem.params)
    optimizer.register_step_pre_hook(lambda o, args, kwargs: ((o, lambda: 5.0), {}))
    assert optimizer.step() == 5.0


@each
def test_hooks_of_state_dicts(cls):
    problem, seen = Problem(), []
    optimizer = cls(problem.params, lr=1.0)
    problem.train(optimizer, 1)
    optimizer.register_state_dict_pre_hook(lambda o: o.param_groups[0].update(lr=0.25))
    optimizer.register_state_dict_post_hook(lambda o, saved: {**saved, "more": 1})
    saved = optimizer.state_dict()
    assert saved["param_groups"][0]["lr"] == 0.25 and saved["more"] == 1
    other = cls(Problem().params)

    def with_rate(rate):
        return lambda o, loaded: {**loaded, "param_groups": [{**g, "lr": rate} for g in loaded["param_groups"]]}

    other.register_load_state_dict_pre_hook(with_rate(0.5))
    other.register_load_state_dict_pre_hook(with_rate(0.75), prepend=True)
    other.register_load_state_dict_post_hook(lambda o: seen.append("second"))
    other.register_load_state_dict_post_hook(lambda o: seen.append("first"), prepend=True)
    other.load_state_dict(saved)
    assert other.param_groups[0]["lr"] == 0.5 and seen == ["first", "second"]
    assert len(other._optimizer_load_state_dict_pre_hooks) == 2, "ours is gone again"


@each
def test_a_deep_copy_has_all_that_is_public(cls):
    problem = Problem()
    optimizer = cls(problem.params, max_grad_norm=1.0)
    problem.train(optimizer, 2)
    other = copy.deepcopy(optimizer)

    def public(o):
        return {name for name in dir(o) if not name.startswith("_") and not callable(getattr(o, name))}

    assert public(optimizer) == public(other)
    assert torch.equal(other.grad_norm, optimizer.grad_norm) and other.defaults == optimizer.defaults
    assert list(other.state) == list(other.param_groups[0]["params"])


@each
@on_every_engine
def test_one_optimizer_of_all_types(cls, backend):
    """Each as if it were alone."""
    dtypes = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
    together = [torch.nn.Parameter(torch.full((3, 4), 2.0, dtype=dtype)) for dtype in dtypes]
    optimizer = cls(together, lr=0.125, backend=backend)
    for p in together:
        p.grad = torch.full_like(p, 0.5)
    optimizer.step()
    for p, dtype in zip(together, dtypes):
        alone = torch.nn.Parameter(torch.full((3, 4), 2.0, dtype=dtype))
        alone.grad = torch.full_like(alone, 0.5)
        cls([alone], lr=0.125, backend=backend).step()
        torch.testing.assert_close(p.detach(), alone.detach())
        assert p.dtype == dtype and optimizer.state[p]["step"].dtype == torch.float32


@each
@on_every_engine
def test_the_default_type_is_nobodys_business(cls, backend):
    found = []
    for dtype in (torch.float32, torch.float64):
        problem = Problem(dtype=torch.float32)
        torch.set_default_dtype(dtype)
        try:
            found.append(problem.train(cls(problem.params, backend=backend, max_grad_norm=1.0), 3))
        finally:
            torch.set_default_dtype(torch.float32)
    assert all(map(torch.equal, *found))


@each
def test_parameters_may_come_in_many_ways(cls):
    problem = Problem()
    for params in (iter(problem.params), tuple(problem.params), [{"params": problem.weight}], problem.named,
                   [{"params": problem.named}], dict(problem.named).values()):  # fmt: skip
        assert len(cls(params).param_groups[0]["params"]) in (1, 2)
    with pytest.raises(TypeError, match="ordered"):
        cls([{"params": set(problem.params)}])
    with pytest.raises(ValueError, match="more than one parameter group"):
        cls([{"params": problem.params}, {"params": problem.params}])
    with warnings.catch_warnings(), pytest.raises(ValueError, match="twice"):
        warnings.simplefilter("ignore")
        cls([problem.weight, problem.weight])


@each
def test_averages_of_the_weights(cls):
    model = torch.nn.Linear(5, 3)
    average = torch.optim.swa_utils.AveragedModel(model)
    optimizer = cls(model.parameters(), lr=1e-2)
    schedule = torch.optim.swa_utils.SWALR(optimizer, swa_lr=1e-3, anneal_epochs=2)
    weights = []
    for _ in range(4):
        optimizer.zero_grad()
        model(torch.ones(2, 5)).square().sum().backward()
        optimizer.step()
        schedule.step()
        average.update_parameters(model)
        weights.append(model.weight.detach().clone())
    torch.testing.assert_close(average.module.weight.detach(), torch.stack(weights).mean(0))


@each
@on_every_engine
def test_complex_parameters_are_refused_and_their_real_view_is_stepped(cls, backend):
    z = torch.randn(4, 2, dtype=torch.complex64)
    with pytest.raises(TypeError, match="complex64"):
        cls([torch.nn.Parameter(z)], backend=backend)
    p = torch.nn.Parameter(torch.view_as_real(z).clone())
    optimizer = cls([p], lr=1e-2, backend=backend)
    before = torch.view_as_complex(p).abs().square().sum().item()
    for _ in range(5):
        optimizer.zero_grad()
        torch.view_as_complex(p).abs().square().sum().backward()
        optimizer.step()
    assert torch.view_as_complex(p).abs().square().sum().item() < before


@each
@on_every_engine
def test_empty_parameters(cls, backend):
    params = [torch.nn.Parameter(torch.ones(shape)) for shape in ((0,), (0, 3), (2, 0), (3,))]
    optimizer = cls(params, lr=0.1, backend=backend, max_grad_norm=1.0)
    for _ in range(2):
        for p in params:
            p.grad = torch.ones_like(p)
        optimizer.step()
    assert (params[3] < 1).all() and all(optimizer.state[p]["step"].item() == 2 for p in params)
