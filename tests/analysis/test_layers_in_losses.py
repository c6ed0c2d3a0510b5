"""What a loss may do with layers, and that torch's own operations are taken where ours cannot be."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from hf_winopt.analysis.layers import layer_norm
from hf_winopt.analysis.one_batch import graph, product
from hf_winopt.analysis.products import HessianProduct
from tests.analysis.models import assert_as_by_torch, of_the_output, plain_product

NET = nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.GELU(), nn.Linear(5, 4))
"""Cast to float64, where it is used."""


def with_a_scaled_copy(model, x):
    layer = copy.copy(model[0])
    layer._parameters = {name: p * 3 for name, p in model[0]._parameters.items()}
    return of_the_output(model[1:], layer(x))


def with_a_parameter_that_is_computed(model, x):
    layer = copy.copy(model[0])
    layer._parameters = {**layer._parameters, "weight": (model[0].weight.tanh() * 2).as_subclass(nn.Parameter)}
    return of_the_output(model[1:], layer(x))


def with_gradients_within_the_backward(model, x):
    hidden = model[:3](x)
    y = model[3](hidden)

    def hook(grad):
        with torch.enable_grad():
            (inner,) = torch.autograd.grad(model[3](hidden).square().sum(), model[3].weight, create_graph=True)
        return grad * inner.norm()

    hidden.register_hook(hook)
    return y.sin().pow(2).mean()


def under_autocast(model, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return of_the_output(model, x)


@pytest.mark.parametrize("loss", [with_a_scaled_copy, with_a_parameter_that_is_computed,
                                  with_gradients_within_the_backward, under_autocast])  # fmt: skip
def test_what_a_loss_may_do_with_layers(loss):
    torch.manual_seed(0)
    assert_as_by_torch(copy.deepcopy(NET).double(), torch.randn(3, 6, dtype=torch.float64), loss)


# where ours cannot be, torch's own is taken ------------------------------------------------------------------------


def with_a_vectorized_jacobian(model, x):
    jacobian = torch.autograd.functional.jacobian(model, x, create_graph=True, vectorize=True)
    return of_the_output(model, x) + jacobian.square().mean()


def mapped(model, x):
    return torch.vmap(model)(x).sin().mean()


def with_functional_gradients(model, x):
    return torch.func.grad(lambda x: model(x).sin().sum())(x).sin().mean()


def checkpointed(model, x):
    """Computed once more in the backward pass, where the operations are torch's own."""
    return of_the_output(model[3], checkpoint(model[:3], x, use_reentrant=False))


def compiled(model, x):
    return torch.compile(model, backend="eager")(x).sin().mean()


@pytest.mark.parametrize(
    "loss", [with_a_vectorized_jacobian, mapped, with_functional_gradients, checkpointed, compiled]
)
@pytest.mark.parametrize("held", [0, 2])
def test_what_ours_cannot_do_torch_does(loss, held):
    """The first product is torch's own, and ours is compared with it, batch by batch."""
    torch.manual_seed(0)
    model = copy.deepcopy(NET).double()
    batches = [torch.randn(3, 6, dtype=torch.float64) for _ in range(2)]
    product = HessianProduct(model, batches, loss, held)
    for _ in range(3):
        v = torch.randn(product.dim, dtype=torch.float64)
        plain = sum(plain_product(model, batch, loss, v) for batch in batches) / 2
        torch.testing.assert_close(product(v), plain, rtol=1e-9, atol=1e-12)


def test_what_ours_do_wrong_on_any_batch_torch_does(monkeypatch):
    """From the batch on that showed it, and what was kept of the ones before is not taken."""
    torch.manual_seed(0)
    model = copy.deepcopy(NET).double()
    batches = [torch.randn(rows, 6, dtype=torch.float64) for rows in (3, 3, 2, 3)]
    closed = layer_norm._closed
    monkeypatch.setattr(layer_norm, "_closed", lambda v, vw, g, *rest: closed(v, vw, g * (1 + (len(g) == 2)), *rest))
    product = HessianProduct(model, batches, of_the_output, held=4)
    for _ in range(2):
        v = torch.randn(product.dim, dtype=torch.float64)
        plain = sum(len(batch) * plain_product(model, batch, of_the_output, v) for batch in batches) / 11
        torch.testing.assert_close(product(v), plain, rtol=1e-9, atol=1e-12)


def test_several_threads_with_one_model():
    """What one leaves out of its gradients no other does, and the process's kernels are as before."""
    torch.manual_seed(0)
    model, x = copy.deepcopy(NET).double().eval(), torch.randn(3, 6, dtype=torch.float64)
    params = list(model.parameters())
    directions = [torch.randn_like(p) for p in params]
    v = torch.cat([part.flatten() for part in directions])
    plain = plain_product(model, x, of_the_output, v)
    before = torch.backends.cuda.flash_sdp_enabled()

    def alone(_):
        found = [product(graph(model, of_the_output, x, params, ours=True), params, directions) for _ in range(20)]
        return [torch.cat([part.flatten() for part in parts]) for parts in found]

    def whole(_):
        hessian = HessianProduct(model, [x], of_the_output)
        return [hessian(v) for _ in range(20)]

    with ThreadPoolExecutor(3) as pool:
        for products in (alone, whole):
            for found in (one for many in pool.map(products, range(3)) for one in many):
                torch.testing.assert_close(found, plain, rtol=1e-9, atol=1e-12)
    assert torch.backends.cuda.flash_sdp_enabled() == before
