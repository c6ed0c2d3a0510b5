"""Small models of transformers, each with a batch, and products with the Hessian by torch alone and by ours."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
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

from hf_winopt.analysis.one_batch import graph, product
from hf_winopt.analysis.twice import twice_differentiable

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
PIXELS = {
    "pixel_values": torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)),
    "labels": torch.tensor([0, 1, 0]),
}
TOKENS = torch.arange(24).view(3, 8)  # one is 0, which is BERT's padding
MASK = torch.tensor([[1] * 8, [1] * 5 + [0] * 3, [1] * 2 + [0] * 6])


def bert(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(vocab_size=50, max_position_embeddings=12, **SIZES, **options))


def of_the_output(model: Any, x: Tensor) -> Tensor:
    return model(x).sin().mean()


def own_loss(model: nn.Module, batch: Any) -> Tensor:
    return model(**batch).loss


MODELS = {
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


def _parts(model: nn.Module, v: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    params = [p for p in model.parameters() if p.requires_grad]
    return params, [part.view_as(p) for part, p in zip(v.split([p.numel() for p in params]), params)]


def product_by_ours(model: nn.Module, batch: Any, loss: Any, v: Tensor) -> Tensor:
    """By the operations of `analysis.layers`."""
    params, parts = _parts(model, v)
    with twice_differentiable(model):
        found = product(graph(model, loss, batch, params, ours=True), params, parts)
    return torch.cat([part.flatten() for part in found])


def plain_product(model: nn.Module, batch: Any, loss: Any, v: Tensor) -> Tensor:
    """By torch alone."""
    params, parts = _parts(model, v)
    with twice_differentiable(model):
        grads = torch.autograd.grad(loss(model, batch), params, create_graph=True, materialize_grads=True)
        pairs = [(g, part) for g, part in zip(grads, parts) if g.requires_grad]
        outputs, along = zip(*pairs)
        found = torch.autograd.grad(outputs, params, along, materialize_grads=True)
    return torch.cat([part.flatten() for part in found])


def assert_as_by_torch(model: nn.Module, batch: Any, loss: Any) -> None:
    v = torch.randn(sum(p.numel() for p in model.parameters() if p.requires_grad), dtype=torch.float64)
    plain = plain_product(model, batch, loss, v)
    torch.testing.assert_close(product_by_ours(model, batch, loss, v), plain, rtol=1e-9, atol=1e-12)
