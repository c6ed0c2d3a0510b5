"""A plan lasts from step to step, through checkpoints, missing gradients, rates on the device and captures."""

from __future__ import annotations

import io
import warnings

import pytest
import torch

from hf_winopt import create_optimizer
from tests.engine.triton.stepping import assert_same, make, train


def test_one_plan_serves_step_after_step_whatever_the_rate(device):
    params, optimizer = make(device)
    train(params, optimizer, 0, 1)
    plan = optimizer._ready.plan
    for t in range(1, 4):
        optimizer.param_groups[0]["lr"] = 10.0**-t
        train(params, optimizer, t, t + 1)
        assert optimizer._ready.plan is plan


def test_gradients_that_are_missing_now_and_then(device):
    missing = {(1, 0), (3, 1), (4, 0), (4, 1)}
    ours, optimizer = make(device, "adan")
    theirs, eager = make(device, "adan", backend="eager")
    train(ours, optimizer, 0, 7, missing)
    train(theirs, eager, 0, 7, missing)
    assert_same(ours, theirs)
    assert [state["step"].item() for state in optimizer.state.values()] == [5, 5]


@pytest.mark.parametrize(("first", "second"), [("triton", "eager"), ("eager", "triton"), ("triton", "triton")])
@pytest.mark.parametrize("name", ["adamw_win2", "adan", "lamb_win", "sgd_win"])
def test_a_checkpoint_goes_from_one_engine_to_the_other(name, first, second, device):
    params, optimizer = make(device, name, first, weight_decay=0.1)
    train(params, optimizer, 0, 3)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    others, other = make(device, name, second, weight_decay=0.1)
    with torch.no_grad():
        for a, b in zip(others, params):
            a.copy_(b)
    other.load_state_dict(torch.load(file, weights_only=True))
    train(params, optimizer, 3, 5)
    train(others, other, 3, 5)
    assert_same(params, others)


def test_the_state_dict_looks_the_same_whichever_engine_stepped(device):
    dicts = []
    for backend in ("eager", "triton"):
        params, optimizer = make(device, backend=backend)
        train(params, optimizer, 0, 2)
        dicts.append(optimizer.state_dict())
    a, b = dicts
    assert a["param_groups"] == b["param_groups"]
    for key in a["state"]:
        assert list(a["state"][key]) == list(b["state"][key])
        for name, value in a["state"][key].items():
            assert (value.dtype, value.shape) == (b["state"][key][name].dtype, b["state"][key][name].shape)


def test_the_state_that_was_replaced_can_be_freed(device):
    """Who moves the state away to make room (`offload`) is not held back by the plan."""
    import weakref

    params, optimizer = make(device)
    train(params, optimizer, 0, 1)
    held = weakref.ref(optimizer.state[params[0]]["x_gap"])
    optimizer.state[params[0]]["x_gap"] = optimizer.state[params[0]]["x_gap"].clone()
    assert held() is None


def test_which_parameters_have_gradients_may_change_every_step(device):
    """As with experts, or two losses in turn: no new plan, once each of them has had one."""
    params, optimizer = make(device, max_grad_norm=0.5)
    train(params, optimizer, 0, 1)
    plan = optimizer._ready.plan
    train(params, optimizer, 1, 6, missing={(1, 0), (2, 1), (4, 0), (5, 0), (5, 1)})
    assert optimizer._ready.plan is plan
    theirs, eager = make(device, backend="eager", max_grad_norm=0.5)
    train(theirs, eager, 0, 6, missing={(1, 0), (2, 1), (4, 0), (5, 0), (5, 1)})
    assert_same(params, theirs)
    torch.testing.assert_close(optimizer.grad_norm, eager.grad_norm)


def test_a_first_gradient_after_some_steps(device):
    ours, optimizer = make(device, "adan")
    theirs, eager = make(device, "adan", backend="eager")
    for params, one in ((ours, optimizer), (theirs, eager)):
        train(params, one, 0, 5, missing={(0, 1), (1, 1)})
    assert_same(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_rates_on_the_device_for_each_group(dtype, device):
    both = []
    for backend in ("triton", "eager"):
        torch.manual_seed(1)
        params = [torch.nn.Parameter(torch.randn(3, 4).to(device)) for _ in range(4)]
        groups = [
            {"params": [p], "lr": torch.tensor(0.01 * 3**i, dtype=dtype).to(device)} for i, p in enumerate(params)
        ]
        optimizer = create_optimizer("adamw_win", groups, backend=backend, max_grad_norm=1.0)
        train(params, optimizer, 0, 4)
        both.append(params)
    assert_same(*both)


@pytest.mark.skipif(
    not hasattr(torch.Tensor, "grad_dtype"), reason="this torch wants gradients of the parameter's type"
)
def test_a_gradient_of_another_type(device):
    """torch lets a parameter have gradients of a type of its own (`grad_dtype`)."""
    p = torch.nn.Parameter(torch.ones(5, dtype=torch.bfloat16).to(device))
    optimizer = create_optimizer("sgd_win", [p], lr=0.5, backend="triton")
    for dtype in (torch.bfloat16, torch.float32, torch.bfloat16):
        p.grad = None
        p.grad_dtype = dtype
        p.grad = torch.ones(5, dtype=dtype).to(device)
        optimizer.step()
    q = torch.nn.Parameter(torch.ones(5, dtype=torch.bfloat16).to(device))
    eager = create_optimizer("sgd_win", [q], lr=0.5, backend="eager")
    for _ in range(3):
        q.grad = torch.ones_like(q)
        eager.step()
    assert torch.equal(p, q)


def test_strides_of_dimensions_of_one_element_mean_nothing(device):
    p = torch.nn.Parameter(torch.randn(8, 1, 3, 3).to(device))
    optimizer = create_optimizer("adamw_win", [p], backend="triton")
    p.grad = torch.randn(8, 1, 3, 3).to(device).as_strided((8, 1, 3, 3), (9, 1, 3, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        optimizer.step()
    assert optimizer._ready.plan.stepped == {0}


def test_a_step_that_fails_is_not_built_upon(device, monkeypatch):
    from hf_winopt.engine.triton.batch import Batch

    params, optimizer = make(device)
    train(params, optimizer, 0, 1)
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="no memory"):
        patch.setattr(Batch, "stages", lambda *_: (_ for _ in ()).throw(RuntimeError("no memory")))
        optimizer.step()
    assert optimizer._ready is None


def test_a_rate_on_the_device_is_read_there(device):
    ours, optimizer = make(device, lr=torch.tensor(1e-2).to(device))
    theirs, eager = make(device, backend="eager")
    for t in range(3):
        optimizer.param_groups[0]["lr"].fill_(1e-2 * t)
        eager.param_groups[0]["lr"] = 1e-2 * t
        train(ours, optimizer, t, t + 1)
        train(theirs, eager, t, t + 1)
    assert_same(ours, theirs)


def test_autograd_sees_that_parameters_were_written(device):
    params, optimizer = make(device)
    train(params, optimizer, 0, 1)
    loss = (params[0] ** 2).sum()
    train(params, optimizer, 1, 2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_clipping_reads_the_gradients_and_leaves_them(device):
    params, optimizer = make(device, max_grad_norm=0.5)
    clipped, plain = make(device)
    train(params, optimizer, 0, 2)
    for p in clipped:
        p.grad = None
    for t in range(2):
        for i, p in enumerate(clipped):
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(10 * t + i)).to(p)
        norm = torch.nn.utils.clip_grad_norm_(clipped, 0.5)
        plain.step()
    assert_same(params, clipped)
    assert optimizer.grad_norm.device == params[0].device
    assert optimizer.grad_norm.shape == ()
    torch.testing.assert_close(optimizer.grad_norm.float(), norm)
    assert torch.equal(params[0].grad.cpu(), torch.randn(6, 5, generator=torch.Generator().manual_seed(10)))


def test_two_devices_in_one_optimizer(device, monkeypatch):
    """One device under two names: each half of the parameters is walked by itself, the norm is of all."""
    from hf_winopt.engine.triton import plan

    names = iter([device, torch.device(device.type, 0)] * 3)
    monkeypatch.setattr(plan, "home", lambda param: next(names))
    ours, optimizer = make(device, "lamb_win", weight_decay=0.1, max_grad_norm=0.5)
    theirs, eager = make(device, "lamb_win", "eager", weight_decay=0.1, max_grad_norm=0.5)
    train(ours, optimizer, 0, 3)
    train(theirs, eager, 0, 3)
    assert len(optimizer._ready.plan._devices) == 2
    assert_same(ours, theirs)
    torch.testing.assert_close(optimizer.grad_norm, eager.grad_norm)


def test_what_a_captured_graph_reads_is_left_alone(device, monkeypatch):
    """A capture without a GPU: the plan is put away, with the addresses that its graph will read."""
    from hf_winopt.engine.triton.plan import _DevicePlan

    params, optimizer = make(device)
    train(params, optimizer, 0, 1)
    (captured,) = optimizer._ready.plan._devices
    captured._upload._of_graph = torch.empty_like(captured._upload.tensor, device="cpu")
    with monkeypatch.context() as patch:
        patch.setattr(_DevicePlan, "capturing", lambda self: True)
        optimizer.param_groups[0]["lr"] = 1e-3
        optimizer.step()
    assert optimizer._ready is None
    kept = [params[0].grad.clone(), captured._upload._of_graph.clone(), captured._upload.tensor.clone()]
    assert kept[1].cpu().equal(kept[2].cpu())
    for p in params:
        p.grad = p.grad.clone()
    optimizer.step()
    assert optimizer._ready is not None
    assert captured._upload._of_graph.equal(kept[1])
    assert captured._upload.tensor.equal(kept[2])


def test_a_capture_without_a_step_before_it_is_refused(device, monkeypatch):
    from hf_winopt.optim import capture

    params, optimizer = make(device)
    monkeypatch.setattr(capture, "capturing", lambda params: True)
    for p in params:
        p.grad = torch.ones_like(p)
    with pytest.raises(RuntimeError, match=r"cannot be captured.*outside of it first.*backend='triton'"):
        optimizer.step()
    assert not optimizer.state


def test_a_capture_of_a_step_that_the_eager_engine_shares_is_refused(device, monkeypatch):
    from hf_winopt.optim import capture

    params = [torch.nn.Parameter(torch.ones(6, 4).to(device)[:, ::2]), torch.nn.Parameter(torch.ones(3).to(device))]
    optimizer = create_optimizer("adamw_win", params, backend="triton")
    for p in params:
        p.grad = torch.ones(p.shape).to(device)
    with pytest.warns(UserWarning, match="gaps"):
        optimizer.step()
        optimizer.step()
    monkeypatch.setattr(capture, "capturing", lambda params: True)
    with pytest.raises(RuntimeError, match="not every parameter is stepped by the Triton engine"):
        optimizer.step()
