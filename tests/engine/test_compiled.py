"""The compiled engine steps as the eager one does, whatever the sizes, layouts and types, and compiles once."""

from __future__ import annotations

import pytest
import torch

from hf_winopt import create_optimizer
from hf_winopt.engine import compiled, programs

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
        for a, b in [(p.detach(), q.detach()), *((mine.state[p][key], value) for key, value in eager.state[q].items())]:
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
    monkeypatch.setattr(programs, "_compile", None)
    monkeypatch.setattr(programs, "_load", None)
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


def test_agr_that_is_off_takes_the_program_without_it(monkeypatch):
    """For parameters of one dimension, and for all after `agr_steps`."""
    plain = pair("adamw_win", [torch.randn(300, 2)])
    step(plain)
    both = pair("adamw_win_agr", [torch.randn(300, 2), torch.randn(700)], agr_steps=1)
    step(both)
    monkeypatch.setattr(programs, "_compile", None)
    for t in range(1, 3):
        step(both, t)
    assert_same(both)


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
    x, y = mine.state[ours[0]]["x"], eager.state[theirs[0]]["x"]
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
    (room,) = (room for (dtype, *_), room in compiled._room.items() if dtype == torch.float32)
    step(both[:1], 1)
    assert any(room is each for each in compiled._room.values())
