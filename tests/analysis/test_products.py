"""Products with the Hessian, and what cannot have one."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
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

from hf_winopt.analysis import hessian_spectrum, one_batch
from hf_winopt.analysis.products import HessianProduct
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
TOKENS = torch.randint(0, 50, (3, 8))  # some are 0, which is BERT's padding
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


@pytest.fixture
def slopes(monkeypatch):
    """How many products were taken by the slope of the loss."""
    taken = []
    way = one_batch.loss_and_slope
    monkeypatch.setattr(one_batch, "loss_and_slope", lambda *given: taken.append(1) or way(*given))
    return taken


@pytest.mark.parametrize("name", REAL)
def test_the_slope_and_the_double_backward_agree_on_the_models_of_transformers(name, slopes):
    torch.manual_seed(0)
    model, batch = REAL[name]()
    model.double()
    batch = {key: part.double() if part.is_floating_point() else part for key, part in batch.items()}
    anew, kept = (HessianProduct(model, [batch], of_transformers, held) for held in (0, 1))
    v, w = torch.randn(2, anew.dim, dtype=torch.float64)
    for _ in range(3):
        product = anew(v)
        assert (product - kept(v)).norm() <= 1e-7 * product.norm()  # GPT-2 takes its loss in float32
    assert len(slopes) == 3  # and none by the kept graph
    torch.testing.assert_close(w @ product, v @ anew(w), rtol=1e-6, atol=1e-9)  # symmetric


def squares_of(layer):
    return lambda model, batch: layer(model(batch[0]).view(2, 2, 2)).pow(3).mean()


def with_weight_norm(model, batch):
    weight = torch._weight_norm(model.weight, model.bias.view(2, 1).exp(), 0)
    return cross_entropy(lambda x: F.linear(x, weight), batch)


GAPS = {
    "whose slope has a wrong derivative": squares_of(lambda x: F.instance_norm(x)),
    "without forward mode": with_weight_norm,
    "whose slope has no derivative": squares_of(lambda x: F.glu(x, 2)),
}


@pytest.mark.parametrize("what", GAPS)
def test_layers_that_torch_cannot_carry_the_slope_through_have_the_double_backward(what, slopes):
    anew, kept = (HessianProduct(NET, BATCHES, GAPS[what], held) for held in (0, 1))
    v = torch.randn(anew.dim)
    assert kept(v).norm() > 0
    for _ in range(3):
        assert torch.equal(anew(v), kept(v))
    assert len(slopes) == 1  # tried once


def test_a_batch_that_takes_another_way_through_the_model_has_the_double_backward(slopes):
    def loss(model, batch):
        return cross_entropy(model, batch) if len(batch[0]) == 4 else with_weight_norm(model, batch)

    batches = [*BATCHES, (BATCHES[0][0][:2], BATCHES[0][1][:2])]
    anew, kept = (HessianProduct(NET, batches, loss, held) for held in (0, 2))
    v = torch.randn(anew.dim)
    torch.testing.assert_close(anew(v), kept(v))
    assert len(slopes) == 2


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
