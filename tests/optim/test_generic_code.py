"""What generic code does around an optimizer: keeps things in its state, grows its groups, gives it numpy's numbers."""

from __future__ import annotations

import copy
import io
import math
import pickle

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from hf_winopt import LAMB, OPTIMIZERS, SGD, AdaL, Adam, AdamW, Adan, create_optimizer

pytestmark = pytest.mark.usefixtures("not_compiled")

ENGINES = ["eager", "compile", "triton"]
CLASSES = (AdamW, Adam, LAMB, SGD, Adan, AdaL)


def make(name="adamw_win", backend="eager", shapes=((4, 3), (5,)), **options):
    torch.manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    return params, create_optimizer(name, params, lr=0.05, backend=backend, **options)


def train(params, optimizer, first, last):
    for t in range(first, last):
        for i, p in enumerate(params):
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(10 * t + i))
        optimizer.step()


def reloaded(state_dict):
    buffer = io.BytesIO()
    torch.save(state_dict, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


# the state is shared with others -------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ENGINES)
def test_others_keep_what_they_like_in_the_state(backend):
    params, optimizer = make(backend=backend)
    others, undisturbed = make(backend=backend)
    optimizer.state["mine"] = {"a": 1, "b": [torch.ones(2)]}
    optimizer.state["number"] = 3
    optimizer.state[params[0]]["tag"] = "abc"
    for t in range(4):
        train(params, optimizer, t, t + 1)
        train(others, undisturbed, t, t + 1)
        optimizer.state[params[1]]["seen"] = t
    assert all(map(torch.equal, params, others))
    assert optimizer.state_bytes() == undisturbed.state_bytes()
    assert optimizer.bytes_per_param() == undisturbed.bytes_per_param()
    assert optimizer.state["mine"]["a"] == 1 and optimizer.state[params[0]]["tag"] == "abc"


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("number", [3, 3.0])
def test_a_step_count_that_is_pythons(number, backend):
    params, optimizer = make(backend=backend)
    others, undisturbed = make(backend=backend)
    train(params, optimizer, 0, 3)
    train(others, undisturbed, 0, 5)
    for p in params:
        optimizer.state[p]["step"] = number
    train(params, optimizer, 3, 5)
    assert all(map(torch.equal, params, others))
    assert optimizer.state[params[0]]["step"].item() == 5


class Lookahead:
    """As timm's: a slow copy of each weight lies in the state of the optimizer that it is around."""

    def __init__(self, optimizer, every=2):
        self.optimizer, self.every, self.steps = optimizer, every, 0

    def step(self):
        self.optimizer.step()
        self.steps += 1
        if self.steps % self.every == 0:
            for p in self.optimizer.param_groups[0]["params"]:
                state = self.optimizer.state[p]
                if "lookahead_slow_buff" not in state:
                    state["lookahead_slow_buff"] = torch.empty_like(p).copy_(p.detach())
                slow = state["lookahead_slow_buff"]
                slow.add_(p.detach() - slow, alpha=0.5)
                p.data.copy_(slow)


@pytest.mark.parametrize("backend", ENGINES)
def test_state_that_others_keep_is_saved_and_loaded(backend):
    """With SGD, which has no second copy of the weights that would undo what is written into them."""
    params, optimizer = make("sgd_win", backend)
    optimizer.param_groups[0]["acceleration"] = "none"
    around = Lookahead(optimizer)
    train(params, around, 0, 5)
    others, other = make("sgd_win", backend)
    other.param_groups[0]["acceleration"] = "none"
    for p, q in zip(params, others):
        q.data.copy_(p)
    other.load_state_dict(reloaded(optimizer.state_dict()))
    resumed = Lookahead(other)
    resumed.steps = around.steps
    train(params, around, 5, 9)
    train(others, resumed, 5, 9)
    assert all(map(torch.equal, params, others))


def test_all_that_is_not_ours_comes_through_a_checkpoint():
    params, optimizer = make()
    train(params, optimizer, 0, 2)
    kept = {"tag": "abc", "count": 3, "nested": {"a": [torch.arange(3)], "b": (1.0, None)}}
    optimizer.state[params[0]].update(kept)
    optimizer.state["mine"] = {"best": 0.5}
    saved = optimizer.state_dict()
    others, other = make()
    other.load_state_dict(saved)
    state = other.state[others[0]]
    assert (state["tag"], state["count"], state["nested"]["b"]) == ("abc", 3, (1.0, None))
    assert torch.equal(state["nested"]["a"][0], torch.arange(3)) and other.state["mine"] == {"best": 0.5}
    state["nested"]["a"][0][0] = 7
    assert kept["nested"]["a"][0][0] == 0, "what was loaded is a copy"
    train(others, other, 2, 4)
    assert set(other.state_dict()["state"][0]) == {"step", "exp_avg", "exp_avg_sq", "x_gap", *kept}


# devices and modes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_numbers_do_not_land_on_the_default_device(name, backend):
    """On the meta device nothing would have a value."""
    options = {"weight_decay": 0.1, "max_grad_norm": 1.0, "skip_nonfinite": True}
    found = []
    for device in ("cpu", "meta"):
        params, optimizer = make(name, backend, **options)
        with torch.device(device):
            train_on_cpu(params, optimizer)
            saved = optimizer.state_dict()
            optimizer.load_state_dict(saved)
            train_on_cpu(params, optimizer)
        found.append(params)
    assert all(map(torch.equal, *found))


def train_on_cpu(params, optimizer):
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for t in range(2):
        for i, p in enumerate(params):
            generator = torch.Generator().manual_seed(10 * t + i)
            p.grad = 4 * torch.randn(p.shape, generator=generator, device="cpu")
        with torch.device("cpu"):
            scaler.scale(torch.ones(()))  # GradScaler makes its own tensors where the default device is
        scaler.step(optimizer)
        scaler.update()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_program_is_compiled_for_the_default_device(name):
    params, optimizer = make(name, "compile", shapes=((4, 3),))
    with torch.device("meta"):
        params[0].grad = torch.ones(4, 3, device="cpu")
        optimizer.step()
    assert params[0].isfinite().all()


@pytest.mark.parametrize("backend", ENGINES)
def test_state_that_was_loaded_or_made_in_inference_mode_is_stepped_outside_of_it(backend):
    params, optimizer = make("adan_win2", backend)
    others, undisturbed = make("adan_win2", backend)
    for p in params:
        p.grad = torch.ones_like(p)
    with torch.inference_mode():
        saved = optimizer.state_dict()
        optimizer.load_state_dict(saved)
    train(params, optimizer, 0, 2)
    with torch.inference_mode():
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(params, optimizer, 2, 4)
    train(others, undisturbed, 0, 4)
    assert all(map(torch.equal, params, others))


@pytest.mark.parametrize("backend", ENGINES)
def test_a_first_step_in_inference_mode(backend):
    params, optimizer = make(backend=backend)
    for p in params:
        p.grad = torch.ones_like(p)
    with torch.inference_mode():
        optimizer.step()
    train(params, optimizer, 1, 3)
    assert optimizer.state[params[0]]["step"].item() == 3


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_fake_tensors_are_stepped_as_by_torch(name):
    """As torch's MemTracker estimates a training's memory."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        for options in ({}, {"max_grad_norm": 1.0, "skip_nonfinite": True}):
            params = [torch.nn.Parameter(torch.randn(4, 3)), torch.nn.Parameter(torch.randn(5))]
            optimizer = create_optimizer(name, params, weight_decay=0.1, **options)
            for _ in range(3):
                for p in params:
                    p.grad = torch.randn_like(p)
                optimizer.step()
            names = OPTIMIZERS[name].rule.state_names
            assert all(optimizer.state[p][each].shape == p.shape for p in params for each in names)
    assert optimizer.state_bytes() == OPTIMIZERS[name].state_bytes_per_param * 17 + 8


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.filterwarnings("ignore:stepped by the slower eager engine")
def test_parameters_on_meta_or_moved_there_have_nothing_to_step(backend, monkeypatch):
    monkeypatch.setattr(torch.__future__, "_swap_module_params_on_conversion", True)  # else they stay, and others come
    model = torch.nn.Linear(3, 2)
    options = {"max_grad_norm": 1.0, "skip_nonfinite": True, "backend": backend}
    optimizer = create_optimizer("lamb_win", model.parameters(), weight_decay=0.1, **options)
    train(list(model.parameters()), optimizer, 0, 2)
    kept = {name: value.clone() for name, value in optimizer.state[model.weight].items()}
    model.to("meta")
    optimizer.step()
    for name, value in kept.items():
        assert name == "step" or torch.equal(optimizer.state[model.weight][name], value), "moments have been kept"
    born = torch.nn.Linear(3, 2, device="meta")
    other = create_optimizer("adamw_win", born.parameters(), **options)
    for p in born.parameters():
        p.grad = torch.ones_like(p)
    other.step()
    assert other.state[born.weight]["exp_avg"].is_meta and other.state[born.weight]["x_gap"].shape == (2, 3)


@pytest.mark.parametrize("cls", CLASSES)
def test_lazy_modules_are_taken_before_their_first_batch(cls):
    model = torch.nn.Sequential(torch.nn.LazyLinear(4), torch.nn.ReLU(), torch.nn.LazyLinear(1))
    optimizer = cls(model.parameters(), max_grad_norm=1.0)
    optimizer.step()
    assert optimizer.bytes_per_param() == 0 and not optimizer.state
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.ones(2, 3)).sum().backward()
        optimizer.step()
    assert all(optimizer.state[p]["step"].item() == 3 for p in model.parameters())


# groups that are changed by hand -------------------------------------------------------------------------------------

WHOLE = [("lamb", {}), ("adal", {}), ("adamw_agr", {}), ("adamw_win", {"max_grad_norm": 1.0}),
         ("adamw_win", {"skip_nonfinite": True})]  # fmt: skip


@pytest.mark.parametrize("kind", [torch.nn.Parameter, lambda t: t.requires_grad_()], ids=["parameter", "tensor"])
@pytest.mark.parametrize("how", ["appended", "replaced", "alone replaced", "the net grows", "another group"])
@pytest.mark.parametrize(("name", "options"), WHOLE, ids=str)
def test_a_vector_put_into_a_group_by_hand_is_no_flat_piece(name, options, how, kind):
    params, optimizer = make(name, weight_decay=0.1, shapes=((20,),) if how == "alone replaced" else ((4, 5), (20,)))
    train(params, optimizer, 0, 1)
    group, vector = optimizer.param_groups[0], kind(torch.ones(20))
    if how == "appended":
        group["params"].append(vector)
    elif how in ("replaced", "alone replaced"):
        group["params"][-1] = vector
    elif how == "the net grows":
        group["params"][:] = [kind(torch.ones(8, 5)), kind(torch.ones(40))]
    else:
        optimizer.add_param_group({"params": [vector]})
    params = [p for group in optimizer.param_groups for p in group["params"]]
    before = [p.detach().clone() for p in params]
    train(params, optimizer, 1, 3)
    assert not any(map(torch.equal, params, before))


def test_frozen_weights_may_be_of_any_type():
    """As in QLoRA; what is trained is told by its gradient."""
    frozen = [torch.nn.Parameter(torch.ones(4, 3).to(dtype), requires_grad=False)
              for dtype in (torch.uint8, torch.int8, torch.float8_e4m3fn, torch.bool)]  # fmt: skip
    trained = torch.nn.Parameter(torch.ones(4, 3))
    for cls in CLASSES:
        optimizer = cls([*frozen, trained], max_grad_norm=1.0)
        trained.grad = torch.ones(4, 3)
        optimizer.step()
        assert set(optimizer.state) == {trained}
        assert optimizer.bytes_per_param() == cls([trained], max_grad_norm=1.0).bytes_per_param()
        optimizer.load_state_dict(optimizer.state_dict())
    with pytest.raises(TypeError, match=r"float32, bfloat16, float16, float64; got a parameter of torch.float8"):
        AdamW([torch.nn.Parameter(torch.ones(3).to(torch.float8_e4m3fn))])
    late = torch.nn.Parameter(torch.ones(3).to(torch.float8_e4m3fn), requires_grad=False)
    optimizer = AdamW([trained, late])
    late.requires_grad_().grad = torch.ones(3).to(torch.float8_e4m3fn)
    before = trained.detach().clone()
    with pytest.raises(TypeError, match=r"got a parameter of torch\.float8"):
        optimizer.step()
    assert torch.equal(trained, before) and not optimizer.state


# numbers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [np.float16, np.float32, np.float64])
def test_numpys_numbers_become_pythons(number):
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = Adan([p], lr=number(0.5), betas=(number(0.5),) * 3, restart_every=np.int64(3), maximize=np.bool_(True))
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))], "eps": number(0.25)})
    for group in (*optimizer.param_groups, optimizer.defaults):
        assert (group["lr"], group["betas"], group["restart_every"]) == (0.5, (0.5,) * 3, 3)
        assert type(group["lr"]) is type(group["betas"][0]) is type(group["eps"]) is float
        assert type(group["restart_every"]) is int and group["maximize"] is True
    with pytest.raises(ValueError, match=r"lr must be a finite number.*got nan"):
        AdamW([p], lr=number(math.nan))


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("number", [np.float32, np.float64, np.float16])
def test_a_schedule_may_return_numpys_numbers(number, backend):
    params, optimizer = make(backend=backend)
    others, undisturbed = make(backend=backend)
    schedules = [
        LambdaLR(o, lambda t, kind=kind: kind(0.5**t)) for o, kind in ((optimizer, number), (undisturbed, float))
    ]
    for t in range(3):
        train(params, optimizer, t, t + 1)
        train(others, undisturbed, t, t + 1)
        for each in schedules:
            each.step()
    torch.testing.assert_close(params, others, rtol=1e-3, atol=1e-4)  # float16 rounds the rate
    saved = optimizer.state_dict()
    _, other = make(backend=backend)
    other.load_state_dict(reloaded(saved))
    assert type(other.param_groups[0]["lr"]) is float
    _, other = make(backend=backend)
    loaded = copy.deepcopy(saved)
    loaded["param_groups"][0]["lr"] = number(0.25)  # saved by another
    other.load_state_dict(loaded)
    assert other.param_groups[0]["lr"] == 0.25 and type(other.param_groups[0]["lr"]) is float


@pytest.mark.parametrize("cls", CLASSES)
def test_options_of_torchs_that_change_nothing_are_taken(cls):
    p = torch.nn.Parameter(torch.ones(3))
    for value in (None, True, False):
        optimizer = cls([p], foreach=value, fused=value, capturable=bool(value), differentiable=False)
        assert not {"foreach", "fused", "capturable", "differentiable"} & optimizer.param_groups[0].keys()
    with pytest.raises(ValueError, match=r"differentiable must be False: a step is taken in place.*got True"):
        cls([p], differentiable=True)
    with pytest.raises(ValueError, match="fused must be True or False; got 'yes'"):
        cls([p], fused="yes")
    with pytest.raises(ValueError, match="differentiable must be False"):
        cls([{"params": [p], "differentiable": True}])
    create_optimizer("adamw_win", [p], fused=True)


def test_a_number_in_quotes_is_refused_with_a_word_on_yaml():
    p = torch.nn.Parameter(torch.ones(3))
    with pytest.raises(
        ValueError, match=r"lr must be a finite number >= 0 .*got '1e-3', a text \(which YAML takes 1e-3 for"
    ):
        AdamW([p], lr="1e-3")
    with pytest.raises(ValueError, match=r"weight_decay must be .*got 'much'$"):
        AdamW([p], weight_decay="much")


# copies --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))], ids=["deepcopy", "pickle"])
def test_a_copy_knows_what_the_original_does(copied):
    params, optimizer = make(max_grad_norm=1.0, skip_nonfinite=True)
    train(params, optimizer, 0, 1)
    params[0].grad = torch.full((4, 3), math.nan)
    optimizer.step()
    optimizer.has_some_only = "it has only some"
    other = copied(optimizer)
    assert other.skipped_steps == optimizer.skipped_steps == 1
    assert torch.equal(other.grad_norm, optimizer.grad_norm) or other.grad_norm.isnan()
    assert other.step_was_skipped is True and other.backend == optimizer.backend
    for group in other.param_groups:
        for p in group["params"]:
            p.grad = torch.ones_like(p)
    with pytest.raises(RuntimeError, match=r"norm of all gradients .*it has only some"):
        other.step()
    other.has_some_only = None
    other._ready = None
    other.step()
    assert other.skipped_steps == 1
    assert optimizer.skipped_steps == 1, "a copy counts for itself"


# what second moments bear --------------------------------------------------------------------------------------------

BACK = 1e-30
"""A gradient so small that nothing of a moment that was spoilt comes from it."""


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_one_large_finite_gradient_spoils_nothing_with_skip_nonfinite(name, backend):
    """Just below what is borne it is stepped with, just above it is left out; all moments stay finite either way."""
    p = torch.nn.Parameter(torch.ones(64, 64))
    optimizer = create_optimizer(name, [p], lr=1e-3, skip_nonfinite=True, backend=backend)
    for size in (1e6, 1e8, 1e10, 1e14, 6e18, 9e18, -9e18, 1.7e19, 1e25, 3e38):
        p.grad = torch.zeros(64, 64)
        p.grad[3, 5] = size
        optimizer.step()
        kept = [value for state in optimizer.state.values() for value in state.values()]
        assert all(value.isfinite().all() for value in (*kept, p)), size
    skipped = optimizer.skipped_steps
    assert 2 <= skipped <= 8
    p.grad = torch.ones(64, 64)
    optimizer.step()
    assert optimizer.skipped_steps == skipped


@pytest.mark.parametrize("backend", ENGINES)
def test_adal_leaves_out_what_its_own_square_does_not_bear(backend):
    p = torch.nn.Parameter(torch.ones(64, 64))
    optimizer = create_optimizer("adal", [p], skip_nonfinite=True, backend=backend)
    for size, left_out in ((1e8, False), (1e10, True), (1.0, False)):
        p.grad = torch.zeros(64, 64)
        p.grad[0, 0] = size
        optimizer.step()
        assert optimizer.step_was_skipped is left_out
    clipped = create_optimizer("adal", [p], skip_nonfinite=True, max_grad_norm=1.0, backend=backend)
    p.grad[0, 0] = 1e10
    clipped.step()
    assert clipped.step_was_skipped is False and clipped.state[p]["exp_avg_sq"].isfinite().all()
