"""Operations made to be differentiated twice give what torch alone gives, and are left where they do not."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers.activations import GELUActivation
from transformers.pytorch_utils import Conv1D

from hf_winopt.analysis.layers import MadeForTwice, batch_norm, convolution, embedding, gelu, layer_norm, linear
from hf_winopt.analysis.products import HessianProduct
from tests.analysis.models import MODELS, assert_as_by_torch, of_the_output, own_loss, plain_product
from tests.analysis.problems import classifier, cross_entropy


@pytest.fixture
def formed(monkeypatch):
    """Whether the gradients of each layer's weights were formed, in turn."""
    seen = []

    def watch(gradients):
        forward = gradients.forward
        watched = staticmethod(lambda ctx, *args: seen.append(not args[-1]) or forward(ctx, *args))
        monkeypatch.setattr(gradients, "forward", watched)

    for kind in (linear, convolution, layer_norm, batch_norm):
        watch(kind._Gradients)
    watch(embedding._Gradient)
    return seen


@pytest.mark.parametrize("held", [0, 1])
@pytest.mark.parametrize("name", MODELS)
def test_models_of_transformers_without_forming_weight_gradients_that_nobody_reads(name, held, formed):
    torch.manual_seed(0)
    model, batch = MODELS[name]()
    model.double()
    batch = {key: part.double() if part.is_floating_point() else part for key, part in batch.items()}
    product = HessianProduct(model, [batch], own_loss, held)
    for _ in range(2):
        v = torch.randn(product.dim, dtype=torch.float64)
        torch.testing.assert_close(product(v), plain_product(model, batch, own_loss, v), rtol=1e-9, atol=1e-12)
    kinds = (nn.Linear, Conv1D, nn.Conv2d, nn.LayerNorm, nn.BatchNorm2d, nn.Embedding)
    graphs, layers = 2 - held, sum(isinstance(module, kinds) for module in model.modules())
    assert formed.count(False) == graphs * layers and formed.count(True) == 2 * layers


IMAGE = (3, 4, 6, 6)
"""Three images of four channels."""

BY_THE_BATCH = "batch norm, by the batch's own"

LAYERS = {
    "linear": (lambda: nn.Linear(6, 5), IMAGE),
    "linear, no bias": (lambda: nn.Linear(6, 5, bias=False), IMAGE),
    "linear, of one vector": (lambda: nn.Linear(6, 5), (6,)),
    "linear, transposed": (lambda: Conv1D(5, 6), IMAGE),
    "convolution": (lambda: nn.Conv2d(4, 5, 3), IMAGE),
    "convolution, strided, dilated, in groups": (
        lambda: nn.Conv2d(4, 6, 3, stride=(2, 1), padding=(2, 1), dilation=(1, 2), groups=2), IMAGE),
    "convolution, depthwise": (lambda: nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False), IMAGE),
    "convolution, padded by a word": (lambda: nn.Conv2d(4, 5, 3, padding="same"), IMAGE),
    "convolution, circular": (lambda: nn.Conv2d(4, 5, 3, padding=1, padding_mode="circular"), IMAGE),
    "convolution, of one image": (lambda: nn.Conv2d(4, 5, 3), IMAGE[1:]),
    "layer norm": (lambda: nn.LayerNorm(6), IMAGE),
    "layer norm, of two dimensions": (lambda: nn.LayerNorm((6, 6)), IMAGE),
    "layer norm, of one vector": (lambda: nn.LayerNorm(6), (6,)),
    "layer norm, no bias": (lambda: nn.LayerNorm(6, bias=False), IMAGE),
    "layer norm, no weights": (lambda: nn.LayerNorm(6, elementwise_affine=False), IMAGE),
    "batch norm": (lambda: nn.BatchNorm2d(4), IMAGE),
    "batch norm, of vectors": (lambda: nn.BatchNorm1d(6), (5, 6)),
    "batch norm, of volumes": (lambda: nn.BatchNorm3d(4), (2, 4, 3, 3, 3)),
    "batch norm, no weights": (lambda: nn.BatchNorm2d(4, affine=False), IMAGE),
    BY_THE_BATCH: (lambda: nn.BatchNorm2d(4, track_running_stats=False), IMAGE),
    "GELU": (lambda: nn.GELU(), IMAGE),
    "GELU, by tanh": (lambda: nn.GELU(approximate="tanh"), IMAGE),
    "GELU of transformers": (lambda: GELUActivation(), IMAGE),
    "GELU of transformers, in Python": (lambda: GELUActivation(use_gelu_python=True), IMAGE),
}  # fmt: skip


class Between(nn.Module):
    """A layer between a scale and a shift of every element of its input, and one that is not linear."""

    def __init__(self, layer, shape):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.randn(shape)), nn.Parameter(torch.randn(shape))
        self.layer = layer
        for p in layer.parameters():  # none is 0 or 1
            nn.init.normal_(p)
        for name, statistic in layer.named_buffers():
            if name.startswith("running"):
                nn.init.uniform_(statistic, 0.5, 2)

    def forward(self, x):
        return self.layer(torch.tanh(self.scale * x) * 2 + self.shift)


def penalized(model, x, loss=of_the_output):
    """Takes gradients itself, whose values count, and whose second derivative is differentiated further."""
    first = loss(model, x)
    grads = torch.autograd.grad(first, list(model.parameters()), create_graph=True)
    return first + sum(g.pow(3).sum() for g in grads)


@pytest.mark.parametrize("kind", LAYERS)
def test_each_layer_as_by_torch(kind):
    torch.manual_seed(0)
    layer, shape = LAYERS[kind]
    assert_as_by_torch(Between(layer(), shape).double(), torch.randn(shape, dtype=torch.float64), of_the_output)


@pytest.mark.parametrize("kind", [kind for kind in LAYERS if kind != BY_THE_BATCH])  # whose third torch 2.14 refuses
def test_each_layer_as_by_torch_where_the_loss_takes_gradients(kind):
    torch.manual_seed(0)
    layer, shape = LAYERS[kind]
    assert_as_by_torch(Between(layer(), shape).double(), torch.randn(shape, dtype=torch.float64), penalized)


class Words(nn.Module):
    """Embeddings of words, some of them padding, and of those the mean; not linear."""

    def __init__(self, **options):
        super().__init__()
        self.words = nn.Embedding(7, 4, **options)
        nn.init.normal_(self.words.weight)

    def forward(self, ids):
        return self.words(ids).sin().mean(-2).exp()


@pytest.mark.parametrize("loss", [of_the_output, penalized])
@pytest.mark.parametrize(
    "options", [{}, {"padding_idx": 3}, {"padding_idx": -1}, {"scale_grad_by_freq": True}], ids=str
)
def test_embeddings_as_by_torch(options, loss):
    torch.manual_seed(0)
    assert_as_by_torch(Words(**options).double(), torch.tensor([[1, 3, 3, 6], [1, 1, 0, 6]]), loss)


@pytest.mark.parametrize("loss", [of_the_output, penalized])
@pytest.mark.parametrize("options", [{}, {"scale": 0.3}, {"is_causal": True},
                                     {"attn_mask": torch.ones(5, 5).tril() > 0}],
                         ids=str)  # fmt: skip
def test_attention_as_by_torch(options, loss):
    torch.manual_seed(0)

    class Attention(nn.Linear):
        def forward(self, x):
            query, key, value = super().forward(x).view(2, 5, 2, 9).transpose(1, 2).chunk(3, -1)
            return F.scaled_dot_product_attention(query, key, value, **options)

    assert_as_by_torch(Attention(6, 18).double(), torch.randn(2, 5, 6, dtype=torch.float64), loss)


@pytest.mark.parametrize("loss", [of_the_output, penalized])
def test_layers_that_are_used_twice(loss):
    torch.manual_seed(0)
    linear, norm, act = nn.Linear(6, 6), nn.LayerNorm(6), nn.GELU()
    model = nn.Sequential(linear, norm, act, linear, norm, act).double()
    assert_as_by_torch(model, torch.randn(5, 6, dtype=torch.float64), loss)


@pytest.mark.parametrize("kind", ["linear", "convolution", "layer norm", "batch norm"])
def test_frozen_weights_and_inputs_that_need_no_gradient(kind):
    torch.manual_seed(0)
    layer, shape = LAYERS[kind]
    x = torch.randn(shape, dtype=torch.float64)
    assert_as_by_torch(layer().double(), x, of_the_output)
    for name in ("weight", "bias"):
        model = Between(layer(), shape).double()
        getattr(model.layer, name).requires_grad_(False)
        assert_as_by_torch(model, x, of_the_output)


OURS = {"linear": linear._Linear, "convolution": convolution._Convolution, "layer norm": layer_norm._LayerNorm,
        "batch norm": batch_norm._BatchNorm, "GELU": gelu._Gelu}  # fmt: skip


@pytest.mark.parametrize("kind", OURS)
def test_ours_are_at_work(kind):
    layer, shape = LAYERS[kind]
    module = layer().eval()
    with MadeForTwice():
        node = module(torch.randn(shape, requires_grad=True)).grad_fn
    while type(node).__name__ == "ViewBackward0":
        ((node, _),) = node.next_functions
    assert node._forward_cls is OURS[kind]


def test_batch_norm_in_training_is_torch_s_own():
    model = nn.BatchNorm2d(4)
    x = torch.randn(IMAGE)
    with MadeForTwice():
        y = model(x)
    assert model.num_batches_tracked == 1
    torch.testing.assert_close(y, F.batch_norm(x, None, None, training=True))


def test_batches_without_examples():
    model = nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1), nn.LayerNorm(3), nn.Linear(3, 3), nn.GELU()).double()
    x = torch.randn(4, 2, 3, 3, dtype=torch.float64)
    assert_as_by_torch(model, x, lambda model, x: model(x).sin().sum() + model(x[:0]).sin().sum())


@pytest.mark.parametrize("kind", [nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm])
@pytest.mark.parametrize("layer", ["linear", "convolution"])
def test_weights_that_are_computed(kind, layer):
    torch.manual_seed(0)
    make, shape = LAYERS[layer]
    model = Between(make(), shape).double()
    kind(model.layer)
    assert_as_by_torch(model, torch.randn(shape, dtype=torch.float64), of_the_output)


def with_weight_norm(model, batch):
    weight = F.normalize(model.weight) * model.bias.exp().unsqueeze(1)
    return cross_entropy(lambda x: F.linear(x, weight), batch)


def test_weights_that_are_normalized_by_the_loss():
    _, (batch, *_) = classifier(torch.float64, (4, 6, 3))
    assert_as_by_torch(nn.Linear(4, 3).double(), batch, with_weight_norm)


@pytest.mark.parametrize("kind", ["linear", "convolution", "layer norm", "batch norm"])
def test_a_hook_sees_the_gradient_as_it_is(kind):
    torch.manual_seed(0)
    layer, shape = LAYERS[kind]
    model = Between(layer(), shape).double()
    model.layer.weight.register_hook(lambda grad: grad * grad.norm())
    assert_as_by_torch(model, torch.randn(shape, dtype=torch.float64), of_the_output)
