"""The shapes are those that transformers makes of the same configurations."""

import math

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    BertConfig,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    ViTConfig,
)

from hf_winopt.bench import SHAPES, shapes_of

TINY_LLAMA = {
    "vocab_size": 32000,
    "hidden_size": 2048,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "intermediate_size": 5632,
    "tie_word_embeddings": False,
}
MODELS = {
    "bert-base": (AutoModelForSequenceClassification, BertConfig(), 109_483_778),
    "gpt2": (AutoModelForCausalLM, GPT2Config(), 124_439_808),
    "gpt2-large": (AutoModelForCausalLM, GPT2Config(n_embd=1280, n_layer=36, n_head=20), 774_030_080),
    "vit-base": (AutoModelForImageClassification, ViTConfig(num_labels=1000), 86_567_656),
    "llama-1b": (AutoModelForCausalLM, LlamaConfig(**TINY_LLAMA), 1_100_048_384),
}


def test_every_name_is_compared():
    assert list(MODELS) == list(SHAPES)


@pytest.mark.parametrize("name", MODELS)
def test_the_shapes_of(name):
    kind, config, elements = MODELS[name]
    with torch.device("meta"):
        made = [tuple(p.shape) for p in kind.from_config(config).parameters()]
    shapes = shapes_of(name)
    assert sum(map(math.prod, shapes)) == elements
    assert sorted(shapes) == sorted(made)  # versions of transformers differ in the order


def test_a_folder_with_a_configuration(tmp_path):
    config = GPT2Config(vocab_size=40, n_embd=8, n_layer=2, n_head=2, n_positions=4)
    config.save_pretrained(tmp_path)
    assert shapes_of(str(tmp_path)) == tuple(tuple(p.shape) for p in GPT2Model(config).parameters())


def test_neither_a_name_nor_a_model(tmp_path):
    with pytest.raises(ValueError, match="unknown shapes 'bert-bas'; did you mean bert-base") as caught:
        shapes_of("bert-bas")
    assert all(name in str(caught.value) for name in SHAPES)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="transformers can configure"):
        shapes_of(str(tmp_path))
