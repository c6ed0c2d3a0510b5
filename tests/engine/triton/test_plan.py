"""A plan lasts while everything stays where it is, and is made anew when something moves."""

from __future__ import annotations

import copy
import io

import pytest
import torch

from hf_winopt import create_optimizer


def make(device, name="adamw_win", backend="triton", **options):
    torch.manual_seed(1)
    params = [torch.nn.Parameter(torch.randn(shape).to(device)) for shape in ((6, 5), (7,))]
    return params, create_optimizer(name, params, backend=backend, **{"lr": 1e-2, **options})


def train(params, optimizer, first, last, missing=()):
    for t in range(first, last):
        for i, p in enumerate(params):
            generator = torch.Generator().manual_seed(10 * t + i)
            p.grad = None if (t, i) in missing else torch.randn(p.shape, generator=generator).to(p)
        optimizer.step()


def assert_same(params, others):
    for a, b in zip(params, others):
        torch.testing.assert_close(a.cpu(), b.cpu(), rtol=1e-6, atol=1e-6)


def test_one_plan_serves_step_after_step_whatever_the_rate(device):
    params, optimizer = make(device)
    train(params, optimizer, 0, 1)
    plan = optimizer._plan
    for t in range(1, 4):
        optimizer.param_groups[0]["lr"] = 10.0**-t
        train(params, optimizer, t, t + 1)
        assert optimizer._plan is plan


def moved_parameter(params, optimizer):
    params[0].data = params[0].data.clone()


def moved_state(params, optimizer):
    for state in optimizer.state.values():
        for name in state:
            state[name] = state[name].clone()


def moved_state_in_place(params, optimizer):
    for state in optimizer.state.values():
        for value in state.values():
            value.data = value.data.clone()


def other_rule(params, optimizer):
    optimizer.param_groups[0]["acceleration"] = "win2"


def reloaded(params, optimizer):
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


def other_layout(params, optimizer):
    params[0].data = params[0].data.t().contiguous().t()


def more_parameters(params, optimizer):
    params.append(torch.nn.Parameter(torch.ones(3).to(params[0])))
    optimizer.add_param_group({"params": params[-1:], "lr": 1e-3, "weight_decay": 0.3})


@pytest.mark.parametrize(
    "change",
    [moved_parameter, moved_state, moved_state_in_place, other_rule, reloaded, other_layout, more_parameters],
)
def test_what_moves_is_noticed(change, device):
    ours, optimizer = make(device)
    theirs, eager = make(device, backend="eager")
    for params, one in ((ours, optimizer), (theirs, eager)):
        train(params, one, 0, 3)
        change(params, one)
        train(params, one, 3, 6)
    assert_same(ours, theirs)


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
    held = weakref.ref(optimizer.state[params[0]]["x"])
    optimizer.state[params[0]]["x"] = optimizer.state[params[0]]["x"].clone()
    assert held() is None


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
    assert len(optimizer._plan._devices) == 2
    assert_same(ours, theirs)
    torch.testing.assert_close(optimizer.grad_norm, eager.grad_norm)


def test_what_a_captured_graph_reads_is_left_alone(device, monkeypatch):
    """A capture without a GPU: the plan is put away, with the addresses that its graph will read."""
    from hf_winopt.engine.triton.plan import _DevicePlan

    params, optimizer = make(device)
    train(params, optimizer, 0, 1)
    (captured,) = optimizer._plan._devices
    captured._pinned = torch.empty_like(captured._upload, device="cpu")
    with monkeypatch.context() as patch:
        patch.setattr(_DevicePlan, "capturing", lambda self: True)
        optimizer.param_groups[0]["lr"] = 1e-3
        optimizer.step()
    assert optimizer._plan is None
    kept = [params[0].grad.clone(), captured._pinned.clone(), captured._upload.clone()]
    assert kept[1].cpu().equal(kept[2].cpu())
    for p in params:
        p.grad = p.grad.clone()
    optimizer.step()
    assert optimizer._plan is not None
    assert captured._pinned.equal(kept[1])
    assert captured._upload.equal(kept[2])


def test_a_capture_without_a_step_before_it_is_refused(device, monkeypatch):
    from hf_winopt.optim import fused

    params, optimizer = make(device)
    monkeypatch.setattr(fused, "capturing", lambda params: True)
    for p in params:
        p.grad = torch.ones_like(p)
    with pytest.raises(RuntimeError, match=r"outside of one, as in torch.cuda.graph's warm-up.*backend is 'triton'"):
        optimizer.step()
    assert not optimizer.state
