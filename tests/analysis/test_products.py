"""Products with the Hessian, and what cannot have one."""

import copy

import pytest
import torch
from torch import nn

from hf_winopt.analysis import hessian_spectrum
from hf_winopt.analysis.products import HessianProduct
from tests.analysis.models import bert, own_loss
from tests.analysis.problems import classifier, cross_entropy, exact_hessian


def test_batches_count_by_their_examples():
    net, batches = classifier(torch.float64, (4, 6, 3))
    product = HessianProduct(net, batches, cross_entropy)
    v = torch.randn(product.dim, dtype=torch.float64)
    exact = exact_hessian(net, batches, cross_entropy)
    torch.testing.assert_close(product(v), exact @ v)
    assert product.examples == 90 and [len(labels) for _, labels in batches] == [32, 32, 26]


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_attention_is_differentiated_twice_and_the_model_left_as_it_was(kernel):
    model = bert(attn_implementation=kernel).train()
    model.dropout.eval()  # not all of a model need be in one mode
    modes = [module.training for module in model.modules()]
    before = copy.deepcopy(model.state_dict())
    batch = {"input_ids": torch.randint(0, 50, (4, 8)), "labels": torch.tensor([0, 1, 1, 0])}
    batch["attention_mask"] = torch.tensor([[1] * 8, [1] * 5 + [0] * 3, [1] * 8, [1] * 2 + [0] * 6])
    product = HessianProduct(model, [batch], own_loss)
    v = torch.randn(product.dim)
    product(v)
    curved = product(v)
    assert curved.norm() > 0
    assert torch.equal(curved, product(v))  # no dropout
    assert modes == [module.training for module in model.modules()]
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values()))
    assert all(p.grad is None for p in model.parameters())

    # against the difference of two gradients
    model.double().eval()
    flat = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    sides = []
    for sign in (1, -1):
        torch.nn.utils.vector_to_parameters(flat + sign * 1e-6 * v.double(), model.parameters())
        grads = torch.autograd.grad(own_loss(model, batch), list(model.parameters()), materialize_grads=True)
        sides.append(torch.cat([g.flatten() for g in grads]))
    torch.testing.assert_close(curved.double(), (sides[0] - sides[1]) / 2e-6, rtol=1e-3, atol=1e-5)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.exp()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0].exp()


NET = nn.Linear(3, 2)
BATCHES = [(torch.randn(4, 3), torch.randint(0, 2, (4,)))]
REFUSED = {
    "a loss without a second derivative": (
        {"loss": lambda model, batch: Once.apply(model(batch[0])).mean()}, "loss must be differentiable twice",
    ),
    "a loss of each example": (
        {"loss": lambda model, batch: model(batch[0]).square().sum(1)}, r"scalar tensor; got one of shape \(4,\)",
    ),
    "a loss that is no tensor": ({"loss": lambda model, batch: 3.0}, "scalar tensor; got 3.0"),
    "a loss that was cut off": (
        {"loss": lambda model, batch: model(batch[0]).detach().sum()}, "depend on the model's parameters",
    ),
    "a loss that is not finite": (
        {"loss": lambda model, batch: model(batch[0]).sum() * torch.inf}, "loss must be finite; got",
    ),
    "an empty loader": ({"dataloader": []}, "dataloader must have examples; got an empty one"),
    "an iterator": ({"dataloader": iter(BATCHES)}, "walked again and again; got an iterator"),
    "batches of no tensors": ({"dataloader": [{"text": "a"}]}, "batches with a tensor of examples; got dict"),
    "half precision": ({"model": nn.Linear(3, 2).bfloat16()}, "float32 or float64; got a parameter of torch.bfloat16"),
    "nothing to train": ({"model": nn.Linear(3, 2).requires_grad_(False)}, "trainable parameters; got none"),
    "no probes": ({"probes": 0}, "probes must be a whole number >= 1; got 0"),
    "no steps": ({"steps": 2.5}, "steps must be a whole number >= 1; got 2.5"),
}  # fmt: skip


@pytest.mark.parametrize("why", REFUSED)
def test_what_has_no_hessian_is_refused_in_words(why):
    different, words = REFUSED[why]
    given = {"model": NET, "dataloader": BATCHES, "loss": cross_entropy, "progress": False, **different}
    with pytest.raises(ValueError, match=words):
        hessian_spectrum(given.pop("model"), given.pop("dataloader"), given.pop("loss"), **given)


def test_a_loss_that_is_linear_has_a_hessian_of_zeros():
    seen = hessian_spectrum(NET, BATCHES, lambda model, batch: model(batch[0]).mean(), progress=False)
    assert seen.eigenvalues.abs().max() == 0 and seen.trace == 0
