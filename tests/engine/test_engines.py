"""What the engines promise beyond the formulas: layouts, sizes, types, and that nothing compiles twice."""

from __future__ import annotations

import pytest
import torch

from hf_winopt import create_optimizer
from hf_winopt.engine import compiled, norms, passes, work

NAMES = ("adamw_win", "lamb_win", "adamw_win_agr")


def stepped(name, params, backend, steps=4, **options):
    """The parameters after a few steps on gradients that depend on the values of the parameters alone."""
    optimizer = create_optimizer(name, params, lr=1e-2, weight_decay=0.1, backend=backend, **options)
    for _ in range(steps):
        for p in params:
            p.grad = torch.sin(p.detach() * 3).clone(memory_format=torch.preserve_format)
        optimizer.step()
    return [p.detach().clone() for p in params], optimizer


LAYOUTS = {
    "transposed": lambda t: t.t(),
    "strided": lambda t: torch.stack([t, t], dim=-1)[..., 0],
    "channels_last": lambda t: t.view(4, 5, 3, 6).to(memory_format=torch.channels_last),
    "expanded_gradient": lambda t: t,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", NAMES)
def test_layouts_give_the_same_values(name, layout):
    plain = torch.randn(20, 18)
    odd = torch.nn.Parameter(LAYOUTS[layout](plain.clone()))
    contiguous = torch.nn.Parameter(odd.detach().clone(memory_format=torch.contiguous_format))
    strides = odd.stride()
    (a,), _ = stepped(name, [odd], "eager")
    (b,), _ = stepped(name, [contiguous], "eager")
    assert odd.stride() == strides
    torch.testing.assert_close(a.contiguous(), b, rtol=1e-6, atol=1e-7)


def test_a_gradient_laid_out_otherwise_than_its_parameter():
    p, q = torch.nn.Parameter(torch.randn(6, 8)), torch.nn.Parameter(torch.zeros(6, 8))
    q.data.copy_(p.data)
    grad = torch.randn(8, 6)
    for param, g in ((p, grad.t()), (q, grad.t().contiguous())):
        optimizer = create_optimizer("adamw_win", [param])
        param.grad = g
        optimizer.step()
    assert torch.equal(p, q)


@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_larger_than_a_block_is_one_parameter(name, monkeypatch):
    """Norms run over all blocks, and cutting changes nothing."""
    values = torch.randn(70, 90)
    whole, _ = stepped(name, [torch.nn.Parameter(values.clone())], "eager")
    monkeypatch.setattr(norms, "BLOCK", 1000)
    cut, _ = stepped(name, [torch.nn.Parameter(values.clone())], "eager")
    torch.testing.assert_close(cut, whole, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", [*NAMES, "lamb", "adal"])
def test_stepping_small_parameters_together_changes_nothing(name, monkeypatch):
    shapes = [(3,), (4, 5), (), (7, 2), (1,)]
    values = [torch.randn(shape) for shape in shapes]
    together, _ = stepped(name, [torch.nn.Parameter(v.clone()) for v in values], "eager")
    monkeypatch.setattr(work, "SMALL", 0)
    apart, _ = stepped(name, [torch.nn.Parameter(v.clone()) for v in values], "eager")
    torch.testing.assert_close(together, apart, rtol=1e-6, atol=1e-7)


def test_segments_of_small_parameters_are_of_bounded_length(monkeypatch):
    monkeypatch.setattr(work, "TOGETHER", 10)
    c = {"grad": 1.0}
    works = [work.Work(torch.zeros(n), torch.zeros(n), {}, c) for n in (4, 5, 3, 0, 12, 1)]
    assert [segment.sizes for segment in work.segments(works)] == [[4, 5], [3], [12], [1]]


@pytest.mark.parametrize("name", ["adamw_win", "lamb_win", "adal"])
def test_one_compilation_serves_all_sizes_rates_and_numbers_of_parameters(name, monkeypatch):
    """Twenty parameters of many sizes, a rate that changes each step: after the first step nothing compiles."""
    monkeypatch.setattr(work, "SMALL", 0)
    compiled._compiled.cache_clear()
    params = [torch.nn.Parameter(torch.randn(3000 + 17 * (i % 5), 2)) for i in range(20)]
    reference = [torch.nn.Parameter(p.detach().clone()) for p in params]
    optimizer = create_optimizer(name, params, weight_decay=0.1, backend="compile")
    eager = create_optimizer(name, reference, weight_decay=0.1, backend="eager")
    for t in range(4):
        for p, q in zip(params, reference):
            p.grad = q.grad = torch.randn_like(p)
        for one in (optimizer, eager):
            one.param_groups[0]["lr"] = 1e-3 * t
            one.param_groups[0]["betas"] = (0.9 - 0.01 * t, 0.999)
            if t:
                with torch.compiler.set_stance("fail_on_recompile"):
                    one.step()
            else:
                one.step()
    more = [torch.nn.Parameter(torch.randn(rows, 30)) for rows in (174, 4000, 40000)]
    other = create_optimizer(name, more, lr=0.5, weight_decay=0.1, backend="compile")
    for p in more:
        p.grad = torch.randn_like(p)
    with torch.compiler.set_stance("fail_on_recompile"):
        other.step()
    for p, q in zip(params, reference):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["lamb_win", "adamw_win_agr"])
def test_numbers_of_their_own_within_one_call(name, monkeypatch):
    """Each parameter keeps its own ratio or sum where several, and padding, go in one call; odd layouts too."""
    monkeypatch.setattr(compiled, "BATCH", 2)
    monkeypatch.setattr(work, "SMALL", 0)
    compiled._compiled.cache_clear()
    values = [torch.randn(70, 60), torch.randn(90, 70) * 3, torch.randn(60, 80).t(), torch.randn(5000)]
    ours = [torch.nn.Parameter(v.clone(memory_format=torch.preserve_format)) for v in values]
    theirs = [torch.nn.Parameter(v.clone()) for v in values]
    a, _ = stepped(name, ours, "compile")
    b, _ = stepped(name, theirs, "eager")
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    compiled._compiled.cache_clear()


def test_frozen_one_dimensional_parameters_compile_once(monkeypatch):
    """They are stepped while they hold a gradient; to be a Parameter is no part of what is compiled for."""
    monkeypatch.setattr(compiled, "BATCH", 1)
    compiled._compiled.cache_clear()
    params = [torch.nn.Parameter(torch.randn(4200 + 100 * i)) for i in range(12)]
    optimizers = [create_optimizer("sgd_win", [p], backend="compile") for p in params]
    monkeypatch.setattr(work, "SMALL", 0)
    for i, (p, optimizer) in enumerate(zip(params, optimizers)):
        p.grad = torch.ones_like(p)
        p.requires_grad_(False)
        with torch.compiler.set_stance("fail_on_recompile" if i else "default"):
            optimizer.step()
    compiled._compiled.cache_clear()


def test_more_rules_than_torch_compiles_of_one_function(monkeypatch):
    """torch gives up after eight compilations of one function; each rule is a function of its own."""
    monkeypatch.setattr(compiled, "BATCH", 1)
    compiled._compiled.cache_clear()
    names = ("adamw_win", "adamw_win2", "adam_win", "adam_win2", "sgd_win", "sgd_win2", "adan", "adan_win", "adamw_d")
    for name in names:
        p = torch.nn.Parameter(torch.randn(70, 60))
        p.grad = torch.randn_like(p)
        create_optimizer(name, [p], backend="compile").step()
        assert torch.isfinite(p).all()
    compiled._compiled.cache_clear()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_parameters_keep_float32_state(dtype):
    params = [torch.nn.Parameter(torch.randn(6, 8).to(dtype)), torch.nn.Parameter(torch.randn(3).to(dtype))]
    _, optimizer = stepped("adamw_win2", params, "eager")
    for p in params:
        assert p.dtype == dtype
        for name in ("exp_avg", "exp_avg_sq", "x", "y"):
            assert optimizer.state[p][name].dtype == torch.float32
    # z is the rounded image of a float32 update, x holds what rounding loses
    x = optimizer.state[params[0]]["x"]
    assert not torch.equal(x, x.to(dtype).float())


def test_half_precision_compiles_to_the_same(monkeypatch):
    """Cast up, computed, cast down: `x` agrees to float32's precision and so do the rounded parameters."""
    monkeypatch.setattr(compiled, "BATCH", 1)
    compiled._compiled.cache_clear()
    values = torch.randn(80, 60).bfloat16()
    runs = [stepped("adamw_win", [torch.nn.Parameter(values.clone())], backend) for backend in ("eager", "compile")]
    (a, ours), (b, theirs) = runs
    assert torch.equal(a[0], b[0])
    x, y = (o.state[o.param_groups[0]["params"][0]]["x"] for o in (ours, theirs))
    torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-6)
    compiled._compiled.cache_clear()


def test_sums_lose_nothing_over_many_elements():
    g = torch.full((3_000_000,), 0.1)
    exact = 3_000_000 * float(g[0].double())
    p = torch.nn.Parameter(torch.zeros_like(g))
    (segment,) = work.segments([work.Work(p, g, {}, {"grad": 1.0})])
    assert abs(norms.abs_sums(segment).item() / exact - 1) < 1e-6
    assert abs(norms.grad_norm([g]).item() / (g.double().norm().item()) - 1) < 1e-6


@pytest.mark.parametrize("elements", [6, 7, 8, 9, 4099, 300_001])
def test_sums_in_stretches_take_every_element_once(elements):
    values = torch.randn(elements)
    exact = values.double().abs().sum()
    torch.testing.assert_close(passes._sum(torch.abs, values), exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["lamb", "lamb_win", "adal", "adamw_win_agr"])
def test_compiled_sums_of_large_parameters(name, monkeypatch):
    """Large and small ones in one step agree with eager, the same twice, and stay where they are at rate 0."""
    monkeypatch.setattr(compiled, "BATCH", 2)
    compiled._compiled.cache_clear()
    values = [torch.randn(300, 301), torch.randn(257, 256), torch.randn(40, 40), torch.randn(7), torch.randn(66_001)]
    runs = [
        stepped(name, [torch.nn.Parameter(v.clone()) for v in values], backend)
        for backend in ("eager", "compile", "compile")
    ]
    (expected, _), (first, _), (again, _) = runs
    torch.testing.assert_close(first, expected, rtol=1e-4, atol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    params = [torch.nn.Parameter(v.clone()) for v in values]
    optimizer = create_optimizer(name, params, lr=0.0, weight_decay=0.1, backend="compile")
    for p in params:
        p.grad = torch.randn_like(p)
    optimizer.step()
    assert all(torch.equal(p, v) for p, v in zip(params, values))
    compiled._compiled.cache_clear()
