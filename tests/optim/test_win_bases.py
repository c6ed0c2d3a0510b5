"""Win around optimizers of torch, transformers, pytorch_optimizer, bitsandbytes and torchao, and who is refused."""

from __future__ import annotations

import io
import sys

import pytest
import torch
from accelerate import Accelerator
from torch.optim.lr_scheduler import LambdaLR

import hf_winopt
from hf_winopt import COMPOSED, Win, create_optimizer
from hf_winopt.optim import Parts
from tests.beside import of_this_process, passes_with_them


def of_library(module, name, **options):
    def make(params):
        return getattr(pytest.importorskip(module), name)(params, **options)

    return make


def of_torch(name, **options):
    return of_library("torch.optim", name, **options)


BASES = {
    "AdamW fused": of_torch("AdamW", lr=1e-2, fused=True),
    "AdamW foreach, amsgrad": of_torch("AdamW", lr=1e-2, foreach=True, amsgrad=True),
    "Adam, tensor lr": of_torch("Adam", lr=torch.tensor(1e-2)),
    "NAdam": of_torch("NAdam", lr=1e-2),
    "RAdam": of_torch("RAdam", lr=1e-2),
    "Adamax": of_torch("Adamax", lr=1e-2),
    "Adafactor": of_torch("Adafactor", lr=1e-1),
    "Adagrad": of_torch("Adagrad", lr=1e-1),
    "ASGD": of_torch("ASGD", lr=1e-2),
    "RMSprop": of_torch("RMSprop", lr=1e-2, momentum=0.5, centered=True),
    "Rprop": of_torch("Rprop", lr=1e-2),
    "SGD": of_torch("SGD", lr=1e-2),
    "SGD nesterov": of_torch("SGD", lr=1e-2, momentum=0.9, nesterov=True),
    "transformers Adafactor": of_library(
        "transformers.optimization", "Adafactor", lr=1e-2, scale_parameter=False, relative_step=False
    ),
    "Lion": of_library("pytorch_optimizer", "Lion", lr=1e-2),
    "AdEMAMix": of_library("pytorch_optimizer", "AdEMAMix", lr=1e-2),
    "bitsandbytes AdamW8bit": of_library("bitsandbytes.optim", "AdamW8bit", lr=1e-2),
    "bitsandbytes Lion": of_library("bitsandbytes.optim", "Lion", lr=1e-2),
    "torchao AdamW8bit": of_library("torchao.optim", "AdamW8bit", lr=1e-2),
}
each = pytest.mark.parametrize("name", of_this_process(BASES))


def parameters():
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(64, 80)), torch.nn.Parameter(torch.randn(8))]


def loss_of(params):
    return sum(((p - 1) ** 2).sum() for p in params)


def train(params, optimizer, steps):
    schedule = LambdaLR(optimizer, lambda t: min(1.0, (t + 1) / 5))
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(params).backward()
        optimizer.step()
        schedule.step()


@each
@pytest.mark.filterwarnings("ignore")
def test_descends_and_resumes_to_the_same_bits(name):
    params = parameters()
    optimizer, before = Win(BASES[name](params), state="compact"), loss_of(params).item()
    train(params, optimizer, 10)
    assert loss_of(params).item() < before
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    others = [torch.nn.Parameter(p.detach().clone()) for p in params]
    again = Win(BASES[name](others), state="compact")
    again.load_state_dict(torch.load(file, weights_only=True))
    for optimizer_and_params in ((optimizer, params), (again, others)):
        train(*reversed(optimizer_and_params), 5)
    assert all(torch.equal(p, q) for p, q in zip(params, others))


@each
@pytest.mark.filterwarnings("ignore")
def test_what_is_written_into_a_weight_stays(name):
    params = parameters()
    optimizer = Win(BASES[name](params))
    train(params, optimizer, 5)
    with torch.no_grad():
        params[0].copy_(torch.full_like(params[0], 3.0))
    optimizer.zero_grad()
    loss_of(params).backward()
    optimizer.step()
    assert (params[0] - 3).abs().max() < 1.5  # it was near a normal distribution: 3 to 6 away


class SAM(torch.optim.SGD):
    pass


class GSAM(SAM):
    pass


class AdamWScheduleFree(torch.optim.AdamW):
    pass


class AsksForALoss(torch.optim.SGD):
    def step(self, closure):
        return closure()


class OwnForm(torch.optim.SGD):
    def state_dict(self):
        return {"slow": {}}


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (torch.optim.LBFGS, ValueError, "LBFGS evaluates the loss several times"),
        (SAM, ValueError, "second gradient"),
        (GSAM, ValueError, "GSAM takes a second gradient"),
        (AdamWScheduleFree, ValueError, "AdamWScheduleFree keeps the weights"),
        (AsksForALoss, ValueError, "asks for a closure"),
        (OwnForm, ValueError, "OwnForm has no 'state'"),
        (lambda p: Win(torch.optim.SGD(p)), ValueError, "must not be a Win itself"),
        (hf_winopt.Adan, ValueError, "ours have Win in their step: Adan"),
        (lambda p: Parts({"all": torch.optim.SGD(p)}), ValueError, "must be one optimizer, not several"),
        (lambda p: torch.optim.AdamW, TypeError, "make one of it first"),
        (lambda p: p, TypeError, "base must be a torch.optim.Optimizer"),
    ],
    ids=lambda value: value.replace(" ", "_") if isinstance(value, str) else "",
)
def test_what_cannot_be_is_refused_by_name(make, error, message):
    with pytest.raises(error, match=message):
        Win(make(parameters()))


@pytest.mark.parametrize("cls", ["AdamWScheduleFree", "SAM", "LOMO", "Lookahead"])
def test_those_of_pytorch_optimizer_are_refused(cls):
    library = pytest.importorskip("pytorch_optimizer")
    if not hasattr(library, cls):
        cls = {"AdamWScheduleFree": "ScheduleFreeAdamW"}[cls]
    params = parameters()
    model = torch.nn.Linear(3, 3)
    base = {
        "SAM": lambda: library.SAM(params, torch.optim.SGD, lr=0.1),
        "LOMO": lambda: library.LOMO(model),
        "Lookahead": lambda: library.Lookahead(torch.optim.SGD(params)),
    }.get(cls, lambda: getattr(library, cls)(params))()
    with pytest.raises((ValueError, TypeError), match="base must"):
        Win(base)


def test_one_that_accelerate_has_prepared_is_refused():
    prepared = Accelerator(cpu=True).prepare(torch.optim.SGD(parameters()))
    with pytest.raises(ValueError, match=r"before accelerator.prepare"):
        Win(prepared)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"acceleration": "none"}, "acceleration must be one of 'win', 'win2'; got 'none'"),
        ({"reckless_steps": (0, 8)}, "reckless_steps must be two finite numbers > 0"),
        ({"state": "8bit"}, "state must be one of 'float32', 'compact'; got '8bit'"),
        ({"backend": "numpy"}, "backend must be one of 'auto', 'eager', 'compile', 'triton'; got 'numpy'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Win(torch.optim.SGD(parameters()), **options)


def test_parameters_that_cannot_be_trained_are_refused():
    (p, _) = parameters()
    with pytest.raises(TypeError, match="params must be of dtype"):
        Win(torch.optim.SGD([torch.nn.Parameter(torch.randn(3, dtype=torch.complex64))]))
    optimizer = Win(torch.optim.SGD([p]))
    with pytest.raises(TypeError, match="params must be of dtype"):
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.randn(3, dtype=torch.complex64))]})
    assert len(optimizer.param_groups) == 1


# the names ---------------------------------------------------------------------------------------------------------

AROUND = of_this_process(name for name in COMPOSED if not name.startswith("muon"))


@pytest.mark.parametrize("name", AROUND)
@pytest.mark.filterwarnings("ignore")
def test_every_name_keeps_the_bytes_that_it_says(name):
    for place, state in enumerate(("float32", "compact")):
        p = torch.nn.Parameter(torch.randn(512, 512))
        optimizer = create_optimizer(name, [p], lr=1e-3, state=state)
        p.grad = torch.randn_like(p)
        optimizer.step()
        tensors = [value for value in optimizer.state[p].values() if isinstance(value, torch.Tensor) and value.ndim]
        kept = sum(_bytes(value) for value in tensors) / p.numel()
        assert kept == pytest.approx(COMPOSED[name].kept[place], rel=0.05, abs=0.1)


def _bytes(value):
    parts = getattr(value, "tensor_attrs", None)  # torchao's codes and scales
    return sum(getattr(value, part).nbytes for part in parts) if parts else value.nbytes


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("lion_win", "pytorch_optimizer", "pytorch_optimizer"),
        ("ademamix_win", "pytorch_optimizer", "pytorch_optimizer"),
        ("adamw_8bit_win", "bitsandbytes.optim", "bitsandbytes"),
        ("adamw_torch_8bit_win", "torchao.optim", "torchao"),
    ],
)
def test_a_missing_library_says_what_brings_it(name, module, package, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=f"{name} needs {package}.*pip install {package}"):
        create_optimizer(name, parameters(), lr=1e-3)


def test_an_option_of_no_name():
    with pytest.raises(TypeError, match=r"rmsprop_win has no option 'alhpa'; did you mean alpha\?"):
        create_optimizer("rmsprop_win", parameters(), alhpa=0.9)
    with pytest.raises(ValueError, match="is rmsprop_win with acceleration='win'"):
        create_optimizer("rmsprop_win", parameters(), acceleration="win2")
    with pytest.raises(ValueError, match="did you mean rmsprop_win"):
        create_optimizer("rmspropwin", parameters())


def test_those_installed_beside():
    assert passes_with_them(__file__) == 11
