"""Products with the Hessian, and what cannot have one."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from hf_winopt.analysis import hessian_spectrum, unformed
from hf_winopt.analysis.products import HessianProduct
from hf_winopt.analysis.twice import twice_differentiable
from tests.analysis.problems import classifier, cross_entropy, exact_hessian


def test_batches_count_by_their_examples():
    net, batches = classifier(torch.float64, (4, 6, 3))
    product = HessianProduct(net, batches, cross_entropy)
    v = torch.randn(product.dim, dtype=torch.float64)
    exact = exact_hessian(net, batches, cross_entropy)
    torch.testing.assert_close(product(v), exact @ v)
    assert product.examples == 90 and [len(labels) for _, labels in batches] == [32, 32, 26]


def bert(**options):
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(vocab_size=50, max_position_embeddings=12, **SIZES, **options))


def of_transformers(model, batch):
    return model(**batch).loss


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_attention_is_differentiated_twice_and_the_model_left_as_it_was(kernel):
    model = bert(attn_implementation=kernel).train()
    model.dropout.eval()  # not all of a model need be in one mode
    modes = [module.training for module in model.modules()]
    before = copy.deepcopy(model.state_dict())
    batch = {"input_ids": torch.randint(0, 50, (4, 8)), "labels": torch.tensor([0, 1, 1, 0])}
    batch["attention_mask"] = torch.tensor([[1] * 8, [1] * 5 + [0] * 3, [1] * 8, [1] * 2 + [0] * 6])
    product = HessianProduct(model, [batch], of_transformers)
    v = torch.randn(product.dim)
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
        grads = torch.autograd.grad(of_transformers(model, batch), list(model.parameters()), materialize_grads=True)
        sides.append(torch.cat([g.flatten() for g in grads]))
    torch.testing.assert_close(curved.double(), (sides[0] - sides[1]) / 2e-6, rtol=1e-3, atol=1e-5)


SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
PIXELS = {"pixel_values": torch.randn(3, 3, 8, 8), "labels": torch.tensor([0, 1, 0])}
TOKENS = torch.arange(24).view(3, 8)  # one is 0, which is BERT's padding
MASK = torch.tensor([[1] * 8, [1] * 5 + [0] * 3, [1] * 2 + [0] * 6])
REAL = {
    "BERT": lambda: (bert(), {"input_ids": TOKENS * MASK, "attention_mask": MASK, "labels": torch.tensor([0, 1, 1])}),
    "GPT-2": lambda: (  # the head is tied to the embedding
        GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=8, n_embd=16, n_layer=2, n_head=2, bos_token_id=0,
                                   eos_token_id=0)),
        {"input_ids": TOKENS, "labels": TOKENS},
    ),
    "ViT": lambda: (ViTForImageClassification(ViTConfig(image_size=8, patch_size=4, **SIZES)), PIXELS),
    "ResNet": lambda: (
        ResNetForImageClassification(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1],
                                                  layer_type="basic")),
        PIXELS,
    ),
}  # fmt: skip
LINEAR = {"BERT": 14, "GPT-2": 9, "ViT": 13, "ResNet": 1}
"""How many linear layers there are."""


def plain_product(model, batch, loss, v):
    """By torch alone."""
    params = [p for p in model.parameters() if p.requires_grad]
    parts = [part.view_as(p) for part, p in zip(v.split([p.numel() for p in params]), params)]
    with twice_differentiable(model):
        grads = torch.autograd.grad(loss(model, batch), params, create_graph=True, materialize_grads=True)
        pairs = [(g, part) for g, part in zip(grads, parts) if g.requires_grad]
        outputs, along = zip(*pairs)
        product = torch.autograd.grad(outputs, params, along, materialize_grads=True)
    return torch.cat([part.flatten() for part in product])


@pytest.fixture
def formed(monkeypatch):
    """Whether the gradient of each linear weight was formed, in turn."""
    seen = []
    forward = unformed._WeightGradient.forward
    watched = staticmethod(lambda ctx, grad, x, left_out: seen.append(not left_out) or forward(ctx, grad, x, left_out))
    monkeypatch.setattr(unformed._WeightGradient, "forward", watched)
    return seen


@pytest.mark.parametrize("held", [0, 1])
@pytest.mark.parametrize("name", REAL)
def test_models_of_transformers_without_forming_weight_gradients_that_nobody_reads(name, held, formed):
    torch.manual_seed(0)
    model, batch = REAL[name]()
    model.double()
    batch = {key: part.double() if part.is_floating_point() else part for key, part in batch.items()}
    product = HessianProduct(model, [batch], of_transformers, held)
    for _ in range(2):
        v = torch.randn(product.dim, dtype=torch.float64)
        torch.testing.assert_close(product(v), plain_product(model, batch, of_transformers, v), rtol=1e-9, atol=1e-12)
    graphs, layers = 2 - held, LINEAR[name]
    assert formed.count(False) == graphs * layers and formed.count(True) == 2 * layers
    assert not any("forward" in vars(module) for module in model.modules())


def penalized(model, batch):
    """Its own loss takes gradients, whose values count."""
    loss = cross_entropy(model, batch)
    return loss + sum(g.pow(3).sum() for g in torch.autograd.grad(loss, list(model.parameters()), create_graph=True))


@pytest.mark.parametrize("kind", [nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm])
def test_weights_that_are_computed(kind):
    _, (batch, *_) = classifier(torch.float64, (4, 6, 3))
    model = kind(nn.Linear(4, 3)).double()
    product = HessianProduct(model, [batch], cross_entropy)
    v = torch.randn(product.dim, dtype=torch.float64)
    torch.testing.assert_close(product(v), plain_product(model, batch, cross_entropy, v), rtol=1e-9, atol=1e-12)
    assert "forward" not in vars(model)


def with_weight_norm(model, batch):
    weight = F.normalize(model.weight) * model.bias.exp().unsqueeze(1)
    return cross_entropy(lambda x: F.linear(x, weight), batch)


@pytest.mark.parametrize("loss", [penalized, with_weight_norm])
def test_weight_gradients_whose_values_count_are_formed(loss):
    net, (batch, *_) = classifier(torch.float64, (4, 6, 3))
    model = net if loss is penalized else nn.Linear(4, 3).double()
    product = HessianProduct(model, [batch], loss)
    v = torch.randn(product.dim, dtype=torch.float64)
    torch.testing.assert_close(product(v), plain_product(model, batch, loss, v), rtol=1e-9, atol=1e-12)


def test_a_hook_sees_the_gradient_as_it_is():
    net, (batch, *_) = classifier(torch.float64, (4, 6, 3))
    net[0].weight.register_hook(lambda grad: grad * grad.norm())
    product = HessianProduct(net, [batch], cross_entropy)
    v = torch.randn(product.dim, dtype=torch.float64)
    torch.testing.assert_close(product(v), plain_product(net, batch, cross_entropy, v), rtol=1e-9, atol=1e-12)


def test_checkpointed_layers():
    net, (batch, *_) = classifier(torch.float64, (4, 6, 3))

    def loss(model, batch):
        inner = checkpoint(model[:2], batch[0], use_reentrant=False)
        return F.cross_entropy(model[2](inner), batch[1])

    product = HessianProduct(net, [batch], loss)
    v = torch.randn(product.dim, dtype=torch.float64)
    torch.testing.assert_close(product(v), plain_product(net, batch, cross_entropy, v), rtol=1e-9, atol=1e-12)


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
