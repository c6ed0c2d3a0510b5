"""No memory is touched that is not the optimizer's, its parameters' or their gradients', whatever happened to them.

On the code before, some of these ended the process, or wrote beyond the end of a tensor.
"""

from __future__ import annotations

import gc
import warnings
import weakref
from functools import partial

import pytest
import torch
from torch.testing._internal.two_tensor import TwoTensor

from hf_winopt import OPTIMIZERS, create_optimizer

pytestmark = pytest.mark.usefixtures("not_compiled")

ENGINES = ["eager", "compile", "triton"]
COMPILED = ENGINES[1:]
GUARD = 7.5
"""What stands behind the end of a tensor, and must go on standing there."""


def gradient_of(p, t):
    return torch.randn(p.shape, generator=torch.Generator().manual_seed(t))


def step(params, optimizer, t):
    for i, p in enumerate(params):
        p.grad = gradient_of(p, 10 * t + i)
    optimizer.step()


def guarded(shape):
    """A parameter with a guard behind its elements, and the guard."""
    numel = torch.Size(shape).numel()
    memory = torch.full((numel + 64,), GUARD)
    memory[:numel] = torch.randn(numel)
    return torch.nn.Parameter(memory[:numel].view(shape)), memory[numel:]


# parameters without memory of their own ------------------------------------------------------------------------------


def doubled(values):
    return TwoTensor(values.clone(), values.clone())


@pytest.mark.filterwarnings("ignore:stepped by the slower eager engine")
@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_wrapper_subclasses_are_stepped_as_what_they_wrap(name, backend):
    values = [torch.randn(4, 3), torch.randn(5), torch.randn(2, 3)]
    options = {"lr": 0.1, "weight_decay": 0.1}
    plain = [torch.nn.Parameter(v.clone()) for v in values]
    mixed = [
        torch.nn.Parameter(v.clone() if i == 1 and backend != "compile" else doubled(v)) for i, v in enumerate(values)
    ]
    ours = create_optimizer(name, mixed, backend=backend, **options)
    reference = create_optimizer(name, plain, backend="eager", **options)
    for t in range(4):
        for i, (p, q) in enumerate(zip(plain, mixed)):
            p.grad = gradient_of(p, 10 * t + i)
            q.grad = doubled(p.grad) if isinstance(q.data, TwoTensor) else p.grad.clone()
        reference.step()
        ours.step()
    for p, q in zip(plain, mixed):
        for found in (q.a, q.b) if isinstance(q.data, TwoTensor) else (q,):
            torch.testing.assert_close(found.detach(), p.detach(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("backend", COMPILED)
def test_that_they_are_stepped_by_eager_is_said_once_and_the_others_are_not(backend):
    params = [torch.nn.Parameter(doubled(torch.randn(3))), torch.nn.Parameter(torch.randn(4, 3))]
    optimizer = create_optimizer("adamw_win", params, backend=backend)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for t in range(3):
            params[0].grad, params[1].grad = doubled(gradient_of(params[0], t)), gradient_of(params[1], t)
            optimizer.step()
    (warning,) = [each for each in told if "slower eager engine" in str(each.message)]
    assert "a parameter is a TwoTensor" in str(warning.message)
    ready = optimizer._ready
    stepped_otherwise = (
        ready.by_plan if backend == "triton" else {i for i, w in ready.works.items() if w.engine == backend}
    )
    assert stepped_otherwise == {1} and 0 not in ready.works


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.filterwarnings("ignore:stepped by the slower eager engine")
def test_two_of_them_that_change_places_keep_their_own_gradients(backend):
    """They have the same address, none: it must not be what they are known by."""
    params = [torch.nn.Parameter(doubled(torch.zeros(3))) for _ in range(2)]
    groups = [{"params": [params[0]], "lr": 0.1}, {"params": [params[1]], "lr": 0.1}]
    optimizer = create_optimizer("sgd_win", groups, backend=backend)
    for t in range(6):
        if t == 2:
            for group, p in zip(optimizer.param_groups, reversed(params)):
                group["params"][0] = p
        params[0].grad, params[1].grad = doubled(torch.ones(3)), doubled(-torch.ones(3))
        optimizer.step()
    alone = torch.nn.Parameter(torch.zeros(3))
    reference = create_optimizer("sgd_win", [alone], lr=0.1, backend="eager")
    for _ in range(6):
        alone.grad = torch.ones(3)
        reference.step()
    torch.testing.assert_close(params[0].a, alone.detach())
    torch.testing.assert_close(params[1].a, -alone.detach())


@pytest.mark.parametrize("backend", COMPILED)
def test_a_gradient_that_is_negated_only_when_it_is_read(backend):
    p, q = (torch.nn.Parameter(torch.ones(4)) for _ in range(2))
    p.grad, q.grad = torch._neg_view(torch.arange(4.0)), -torch.arange(4.0)
    for each, engine in ((p, backend), (q, "eager")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            create_optimizer("sgd_win", [each], lr=0.1, backend=engine).step()
    torch.testing.assert_close(p.detach(), q.detach())


# what has grown, shrunk, or changed its type -------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("name", ["adamw_win", "lamb_win", "adan", "adamw_agr"])
def test_state_that_has_not_grown_with_its_parameter_is_refused(name, backend):
    """As where Gaussian splatting grows a parameter and those moments that it knows: strides (3, 1) say nothing."""
    p = torch.nn.Parameter(torch.randn(10, 3))
    optimizer = create_optimizer(name, [p], weight_decay=0.1, backend=backend)
    for t in range(2):
        step([p], optimizer, t)
    state = optimizer.state.pop(p)
    last = list(state)[-1]
    memory = torch.full((40, 3), GUARD)
    memory[:10] = state[last]
    state[last] = memory[:10]
    grown = torch.nn.Parameter(torch.cat([p.detach(), torch.randn(4, 3)]))
    optimizer.param_groups[0]["params"][0] = grown
    optimizer.state[grown] = {k: torch.cat([v, torch.zeros(4, 3)]) if k in ("exp_avg", "exp_avg_sq") else v
                              for k, v in state.items()}  # fmt: skip
    before = grown.detach().clone()
    grown.grad = torch.randn(14, 3)
    wrong = "exp_avg_diff" if name == "adan" else last
    if name == "adamw_agr":  # which keeps nothing but what has grown
        optimizer.step()
        assert not torch.equal(grown, before)
        return
    with pytest.raises(ValueError, match=rf"state '{wrong}' .* must be of shape \(14, 3\).*; got shape \(10, 3\)"):
        optimizer.step()
    assert torch.equal(grown, before) and (memory[10:] == GUARD).all()


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("at", [0, 2], ids=["at the first step", "later"])
def test_an_older_shorter_gradient_of_a_parameter_that_has_grown_is_refused(backend, at):
    p = torch.nn.Parameter(torch.randn(4, 3))
    optimizer = create_optimizer("adamw_win", [p], backend=backend)
    for t in range(at):
        step([p], optimizer, t)
    p.grad = torch.randn(4, 3)
    p.data = torch.cat([p.data, torch.randn(200, 3)])
    before = p.detach().clone()
    with pytest.raises(ValueError, match=r"gradient of a parameter must be of its shape \(204, 3\).*\(4, 3\)"):
        optimizer.step()
    assert torch.equal(p, before)


@pytest.mark.parametrize("backend", ENGINES)
def test_a_parameter_that_was_cut_in_place_keeps_what_lies_behind_it(backend):
    """Its address stays, and so does that of its state."""
    p, _ = guarded((10, 3))
    optimizer = create_optimizer("sgd_win", [p], backend=backend)
    for t in range(2):
        step([p], optimizer, t)
    tail = p.detach()[4:].clone()
    p.data = p.data[:4]
    with pytest.raises(ValueError, match=r"must be of shape \(4, 3\).*; got shape \(10, 3\)"):
        step([p], optimizer, 2)
    for name, value in optimizer.state[p].items():
        if name != "step":
            optimizer.state[p][name] = value[:4]
    whole = p.data.as_strided((10, 3), (3, 1))
    step([p], optimizer, 3)
    assert torch.equal(whole[4:], tail)


@pytest.mark.parametrize("backend", ENGINES)
def test_a_gradient_that_changes_its_type_and_not_its_size(backend):
    """bf16 and then fp16 have as many bytes, and are laid out alike."""
    if not hasattr(torch.Tensor, "grad_dtype"):
        pytest.skip("this torch wants gradients of the parameter's type")
    p, q = (torch.nn.Parameter(torch.ones(8, 4, dtype=torch.bfloat16)) for _ in range(2))
    p.grad_dtype = q.grad_dtype = None
    pair = [create_optimizer("sgd_win", [each], lr=0.5, backend=b) for each, b in ((p, backend), (q, "eager"))]
    for dtype in (torch.bfloat16, torch.float16, torch.bfloat16):
        for each, optimizer in zip((p, q), pair):
            each.grad = torch.full((8, 4), 0.125, dtype=dtype)
            optimizer.step()
    torch.testing.assert_close(p.detach(), q.detach(), rtol=2.0**-7, atol=0)  # Triton's interpreter cuts bf16


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("change", [torch.nn.Module.double, torch.nn.Module.bfloat16], ids=["float64", "bfloat16"])
def test_a_model_whose_type_changes_between_steps(backend, change):
    """Every engine refuses float64 parameters with float32 state; half precision has float32 state anyway."""
    model = torch.nn.Linear(4, 3)
    optimizer = create_optimizer("adamw_win", model.parameters(), backend=backend)
    params = list(model.parameters())
    step(params, optimizer, 0)
    change(model)
    for p in params:
        p.grad = torch.ones_like(p)
    if change is torch.nn.Module.double:
        with pytest.raises(ValueError, match=r"state 'exp_avg' .* torch.float64.*got .*torch.float32"):
            optimizer.step()
    else:
        optimizer.step()
        assert optimizer.state[params[0]]["step"] == 2


@pytest.mark.parametrize("backend", ENGINES)
def test_storage_that_was_made_smaller_is_refused(backend):
    """As FSDP does to give memory back."""
    p = torch.nn.Parameter(torch.randn(64))
    optimizer = create_optimizer("adamw_win", [p], backend=backend)
    step([p], optimizer, 0)
    for tensor, back in ((optimizer.state[p]["x_gap"], 256), (p.data, 256)):
        tensor.untyped_storage().resize_(16)
        with pytest.raises(ValueError, match="must have memory for every element"):
            optimizer.step()
        tensor.untyped_storage().resize_(back)


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("step_count", [torch.empty(0), torch.ones(3), "three", None], ids=str)
def test_a_step_count_that_is_no_number_is_refused(backend, step_count):
    p = torch.nn.Parameter(torch.randn(3))
    optimizer = create_optimizer("adamw_win", [p], backend=backend)
    step([p], optimizer, 0)
    optimizer.state[p]["step"] = step_count
    with pytest.raises(ValueError, match="state 'step' of a parameter must be a number"):
        step([p], optimizer, 1)


# who was shown the state can move it at any time ----------------------------------------------------------------------


def moved(tensor):
    """The same tensor with its values elsewhere."""
    tensor.data = tensor.data.clone()


HANDS = {
    "asked for and gone": lambda optimizer, p: lambda: moved(optimizer.state[p]["x_gap"]),
    "a tensor held": lambda optimizer, p: partial(moved, optimizer.state[p]["x_gap"]),
    "the dict of a parameter held": lambda optimizer, p: partial(
        lambda state: moved(state["x_gap"]), optimizer.state[p]
    ),
    "the whole held": lambda optimizer, p: partial(lambda states: moved(states[p]["x_gap"]), optimizer.state),
    "a state dict held": lambda optimizer, p: partial(
        lambda saved: moved(saved["state"][0]["x_gap"]), optimizer.state_dict()
    ),
    "a list of all": lambda optimizer, p: partial(
        lambda every: [moved(tensor) for tensor in every], list(optimizer.state[p].values())
    ),
    "the count": lambda optimizer, p: partial(moved, optimizer.state[p]["step"]),
    "another in its place": lambda optimizer, p: partial(
        lambda state: state.update(x_gap=state["x_gap"].clone()), optimizer.state[p]
    ),
}


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("how", HANDS)
def test_state_that_was_moved_is_noticed_however_long_ago_it_was_shown(how, backend):
    p, q = (torch.nn.Parameter(torch.ones(5, 3)) for _ in range(2))
    ours, reference = (
        create_optimizer("adamw_win", [each], lr=0.1, backend=b) for each, b in ((p, backend), (q, "eager"))
    )
    for t in range(3):
        step([p], ours, t)
        step([q], reference, t)
    move = HANDS[how](ours, p)
    for t in range(3, 9):
        if t in (5, 7):
            was = ours._own_state[p]["x_gap"].data  # lives on, so that no address is used again
            move()
            assert was is not None
        step([p], ours, t)
        step([q], reference, t)
        torch.testing.assert_close(p.detach(), q.detach(), rtol=1e-6, atol=1e-6)


def test_state_is_not_asked_for_addresses_while_nobody_else_can_reach_it():
    p = torch.nn.Parameter(torch.ones(5, 3))
    optimizer = create_optimizer("adamw_win", [p], backend="eager")
    for t in range(3):
        step([p], optimizer, t)
    assert not optimizer._shown
    saved = optimizer.state_dict()
    assert optimizer._shown
    step([p], optimizer, 3)
    assert optimizer._shown, "the state dict is still held"
    del saved
    step([p], optimizer, 4)
    assert not optimizer._shown


@pytest.mark.parametrize("backend", ENGINES)
def test_an_optimizer_that_is_dropped_gives_its_memory_back_at_once(backend):
    """Not only when Python looks for circles, which on a GPU can be too late."""
    p = torch.nn.Parameter(torch.ones(5, 3))
    optimizer = create_optimizer("adamw_win", [p], backend=backend)
    for t in range(3):
        step([p], optimizer, t)
    held = weakref.ref(optimizer.state[p]["exp_avg"])
    gc.disable()
    try:
        del optimizer
        assert held() is None
    finally:
        gc.enable()
