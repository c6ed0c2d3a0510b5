"""What the eager engine promises beyond the formulas: layouts, sizes, types."""

from __future__ import annotations

import pytest
import torch

from hf_winopt import create_optimizer
from hf_winopt.engine import norms, work
from hf_winopt.rules import Rule
from tests.problems import kept

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
    works = [work.Work(torch.zeros(n), {}, torch.zeros(n), c) for n in (4, 5, 3, 0, 12, 1)]
    assert [segment.sizes for segment in work.segments(Rule(), works)] == [[4, 5], [3], [12], [1]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_parameters_keep_float32_state(dtype):
    params = [torch.nn.Parameter(torch.randn(6, 8).to(dtype)), torch.nn.Parameter(torch.randn(3).to(dtype))]
    _, optimizer = stepped("adamw_win2", params, "eager")
    for p in params:
        assert p.dtype == dtype
        for name in ("exp_avg", "exp_avg_sq", "x_gap", "y_gap"):
            assert optimizer.state[p][name].dtype == torch.float32
    # z is the rounded image of a float32 update, its distance holds what rounding loses
    x = kept(optimizer, params[0], "x")
    assert not torch.equal(x, x.to(dtype).float())


def test_sums_lose_nothing_over_many_elements():
    g = torch.full((3_000_000,), 0.1)
    exact = 3_000_000 * float(g[0].double())
    p = torch.nn.Parameter(torch.zeros_like(g))
    (segment,) = work.segments(Rule(), [work.Work(p, {}, g, {"grad": 1.0})])
    assert abs(norms.abs_sums(segment).item() / exact - 1) < 1e-6
    assert abs(norms.grad_norm([g], (), g.device).item() / (g.double().norm().item()) - 1) < 1e-6
