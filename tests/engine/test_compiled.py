"""The compiled engine steps as the eager one does, whatever the sizes, layouts and types, and compiles once."""

from __future__ import annotations

import pytest
import torch

from hf_winopt import create_optimizer
from hf_winopt.engine import compiled, machine_code, steppers
from tests.problems import all_kept, kept

SHAPES = [(300, 301), (257, 256), (40, 40), (7,), (66_001,), (1,), (2,), (), (0,), (3, 0)]


def pair(name, values, **options):
    """Two copies of the same parameters, stepped by `compile` and by `eager`."""
    options = {"lr": 1e-2, "weight_decay": 0.1, **options}
    sets = [[torch.nn.Parameter(v.clone(memory_format=torch.preserve_format)) for v in values] for _ in range(2)]
    backends = zip(sets, ("compile", "eager"))
    return [(params, create_optimizer(name, params, backend=backend, **options)) for params, backend in backends]


def step(both, t=0):
    for params, optimizer in both:
        for p in params:
            p.grad = torch.sin(p.detach() * 3 + t).clone(memory_format=torch.preserve_format)
        optimizer.step()


def assert_same(both):
    """To 1e-5 of the largest element: a sum in another order, and small elements are differences of large ones."""
    (ours, mine), (theirs, eager) = both
    for p, q in zip(ours, theirs):
        kept_of_p = all_kept(mine, p)
        for a, b in [(p.detach(), q.detach()), *((kept_of_p[key], value) for key, value in all_kept(eager, q).items())]:
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5 * b.abs().max().item() if b.numel() else 0)


@pytest.mark.parametrize("name", ["adamw_win", "lamb", "lamb_win", "adal", "adamw_win_agr"])
def test_steps_as_eager_does(name):
    both = pair(name, [torch.randn(shape) for shape in SHAPES])
    for t in range(4):
        step(both, t)
    assert_same(both)


@pytest.mark.parametrize("name", ["lamb_win", "adamw_win_agr"])
def test_the_same_bits_twice_and_none_changed_at_rate_0(name):
    values = [torch.randn(shape) for shape in SHAPES]
    first, _ = pair(name, values)
    again, _ = pair(name, values)
    for t in range(2):
        step([first], t)
        step([again], t)
    assert all(torch.equal(a, b) for a, b in zip(first[0], again[0]))
    still, _ = pair(name, values, lr=0.0)
    step([still])
    assert all(torch.equal(p, v) for p, v in zip(still[0], values))


@pytest.mark.parametrize("name", ["adamw_win", "lamb_win"])
def test_nothing_compiles_after_the_first_step(name, monkeypatch):
    """Another rate, other numbers, sizes, threads and autocast take the program that is there."""
    both = pair(name, [torch.randn(300, 2)])
    step(both)
    monkeypatch.setattr(machine_code, "_compile", None)
    monkeypatch.setattr(machine_code, "_load", None)
    threads = torch.get_num_threads()
    for t in range(1, 4):
        for _, optimizer in both:
            optimizer.param_groups[0]["lr"] = 1e-3 * t
            optimizer.param_groups[0]["betas"] = (0.9 - 0.01 * t, 0.999)
        torch.set_num_threads(t)
        with torch.autocast("cpu", enabled=t == 2):
            step(both, t)
    torch.set_num_threads(threads)
    assert_same(both)
    more = pair(name, [torch.randn(rows, 30) for rows in (174, 4000, 40000)], lr=0.5)
    step(more)
    assert_same(more)


@pytest.fixture
def rules_asked(monkeypatch):
    """The rules that programs are taken for, in order."""
    asked = []
    programs = compiled.programs
    monkeypatch.setattr(
        compiled, "programs", lambda requests: asked.extend(each.rule for each in requests) or programs(requests)
    )
    return asked


def test_agr_and_the_biases_it_leaves_alone_share_a_program(rules_asked):
    """To compile another for a thousandth of the elements would double a machine's first step."""
    both = pair("adamw_win_agr", [torch.randn(300, 52), torch.randn(700), torch.zeros(30, 2)])
    for t in range(3):
        step(both, t)
    assert {rule.transform for rule in rules_asked} == {"agr"}
    assert_same(both)


def test_agr_that_is_off_takes_the_program_without_it(rules_asked):
    """After `agr_steps`, and where it is off for most: no sum is taken that nobody needs."""
    after = pair("adamw_win_agr", [torch.randn(300, 2), torch.randn(7)], agr_steps=1)
    step(after)
    rules_asked.clear()
    step(after, 1)
    assert {rule.transform for rule in rules_asked} == {"none"}
    rules_asked.clear()
    mostly_off = pair("adamw_win_agr", [torch.randn(30, 2), torch.randn(700)])
    step(mostly_off)
    assert [rule.transform for rule in rules_asked] == ["agr", "none"]
    assert_same(after)
    assert_same(mostly_off)


def test_an_infinite_gradient_that_agr_leaves_alone_stays_infinite():
    both = pair("adamw_win_agr", [torch.randn(300, 52), torch.randn(700)])
    for params, optimizer in both:
        for p in params:
            p.grad = torch.ones_like(p)
        params[1].grad[3] = torch.inf
        optimizer.step()
    for params, optimizer in both:
        assert optimizer.state[params[1]]["exp_avg"].isinf().nonzero().tolist() == [[3]]
        assert not optimizer.state[params[1]]["exp_avg"].isnan().any()


def test_layouts():
    """Transposed and channels-last in place, strided and mixed by copies."""
    transposed, strided = torch.randn(50, 60).t(), torch.randn(20, 30, 2)[..., 0]
    both = pair("lamb_win", [transposed, torch.randn(4, 5, 3, 6).to(memory_format=torch.channels_last)])
    for i, (params, optimizer) in enumerate(both):
        odd = torch.nn.Parameter(torch.empty(20, 30, 2)[..., 0])
        odd.data.copy_(strided)
        assert odd.stride() == (60, 2)
        optimizer.add_param_group({"params": [odd]})
        both[i] = ([*params, odd], optimizer)
    for t in range(3):
        step(both, t)
    assert both[0][0][0].stride() == (1, 60)
    assert_same(both)
    for params, optimizer in both:
        params[0].grad = params[0].grad.contiguous()
        optimizer.step()
    assert_same(both)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_types(dtype):
    """Cast up, computed, cast down: rounded parameters agree, and what is not rounded to its own precision."""
    both = pair("adamw_win", [torch.randn(80, 60, dtype=dtype)])
    for t in range(3):
        step(both, t)
    (ours, mine), (theirs, eager) = both
    assert torch.equal(ours[0], theirs[0]) or dtype == torch.float64
    x, y = kept(mine, ours[0], "x"), kept(eager, theirs[0], "x")
    tolerance = 1e-6 if dtype == torch.bfloat16 else 1e-12
    torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance)


def test_autograd_hears_of_the_step():
    """A graph that was made before a step and needs the old values is refused, as with torch's optimizers."""
    p = torch.nn.Parameter(torch.randn(30))
    optimizer = create_optimizer("adamw_win", [p], backend="compile")
    loss = p.square().sum()
    p.grad = torch.ones(30)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_room_for_directions_is_kept_from_step_to_step():
    both = pair("lamb", [torch.randn(200, 30), torch.randn(50)])
    step(both[:1])
    (room,) = (room for (dtype, *_), room in steppers._room.items() if dtype == torch.float32)
    step(both[:1], 1)
    assert any(room is each for each in steppers._room.values())


@pytest.mark.parametrize("name", ["lamb_win", "adamw_win_agr"])
def test_a_step_takes_no_memory_of_its_own(name):
    """Memory that is fresh at each step would cost as much as the step."""
    p = torch.nn.Parameter(torch.randn(300, 301))
    p.grad = torch.randn(300, 301)
    optimizer = create_optimizer(name, [p], backend="compile", weight_decay=0.1)
    optimizer.step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        optimizer.step()
        torch.ones(p.shape)  # the profiler sees allocations
    taken = [event.self_cpu_memory_usage for event in profile.events()]
    assert [size for size in taken if size >= p.nbytes] == [p.nbytes]
