"""Which parameters of real models Muon is for, and the patterns that overrule it."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import nn

from hf_winopt.optim.split import described, hidden_matrices

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def bert():
    config = transformers.BertConfig(**SMALL, vocab_size=50)
    return transformers.BertForSequenceClassification(config)


def gpt2():
    config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=50, bos_token_id=0, eos_token_id=0)
    return transformers.GPT2LMHeadModel(config)


def vit():
    return transformers.ViTForImageClassification(transformers.ViTConfig(**SMALL, image_size=32, patch_size=8))


def t5():
    config = transformers.T5Config(d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, vocab_size=50)
    return transformers.T5ForConditionalGeneration(config)


def llama():
    config = transformers.LlamaConfig(**SMALL, vocab_size=50, num_key_value_heads=1, tie_word_embeddings=False)
    return transformers.LlamaForCausalLM(config)


def kinds(chosen):
    """The last two parts of the names, without `weight`."""
    return {".".join(name.removesuffix(".weight").split(".")[-2:]) for name in chosen}


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (
            bert,
            {"self.query", "self.key", "self.value", "output.dense", "intermediate.dense", "pooler.dense"},
        ),
        (gpt2, {"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"}),
        (vit, {"attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj", "mlp.fc1", "mlp.fc2"}),
        (t5, {f"{where}Attention.{part}" for where in ("Self", "EncDec") for part in "qkvo"}
            | {"DenseReluDense.wi", "DenseReluDense.wo"}),
        (llama, {*(f"self_attn.{part}_proj" for part in "qkvo"),
            *(f"mlp.{part}_proj" for part in ("gate", "up", "down"))}),
    ],
)  # fmt: skip
def test_hidden_matrices_of_models_of_transformers(make, expected):
    model = make()
    chosen = hidden_matrices(model)
    assert kinds(chosen) == expected
    assert all(param.ndim == 2 for param in chosen.values())


def test_all_of_them_and_nothing_else():
    model = llama()
    chosen = hidden_matrices(model)
    left = {name for name, param in model.named_parameters() if name not in chosen}
    assert {name for name in left if "norm" not in name} == {"model.embed_tokens.weight", "lm_head.weight"}


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.latents = nn.Parameter(torch.zeros(4, 8))
        self.decomposition = nn.Linear(8, 8).requires_grad_(False)
        self.table = nn.Embedding(20, 8)
        self.hidden = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])
        self.conv = nn.Conv1d(8, 8, 3)
        self.narrow = nn.Linear(8, 1)
        self.lm_head = nn.Linear(8, 20)
        self.lm_head.weight = self.table.weight


def test_a_model_of_ones_own():
    model = Plain()
    assert set(hidden_matrices(model)) == {"hidden.0.weight", "hidden.1.weight"}
    model.hidden[1].requires_grad_(False)
    assert set(hidden_matrices(model)) == {"hidden.0.weight"}


def test_patterns_overrule():
    model = Plain()
    assert set(hidden_matrices(model, include=r"^narrow")) == {"hidden.0.weight", "hidden.1.weight", "narrow.weight"}
    assert set(hidden_matrices(model, exclude=r"hidden\.1\.")) == {"hidden.0.weight"}
    assert set(hidden_matrices(model, include="hidden", exclude="hidden")) == set()
    assert "table.weight" in hidden_matrices(model, include="lm_head.weight")  # the same, by its other name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"include": "hiden"}, "muon_include must match a trained matrix; 'hiden' matches none"),
        ({"exclude": "("}, r"muon_exclude must be a regular expression; got '\('"),
        ({"include": "conv"}, "muon_include must match a trained matrix; 'conv' matches none"),
    ],
)
def test_bad_patterns_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        hidden_matrices(Plain(), **options)


def test_lora_adapters_go_where_their_layer_would():
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(bert(), LoraConfig(r=4, target_modules=["query", "word_embeddings"], task_type="SEQ_CLS"))
    chosen = hidden_matrices(model)
    assert chosen
    assert {name.split(".")[-3] for name in chosen} == {"lora_A", "lora_B"}
    assert all(".query." in name for name in chosen)  # and none of the embedding or of the classifier that is trained


def test_the_split_is_described():
    text = described(Plain(), ["hidden.0.weight"])
    assert text.splitlines() == [
        "muon: 1 tensors, 0.00 M parameters: hidden.*.weight",
        "adamw: 10 tensors, 0.00 M parameters: latents, table.weight, hidden.*.weight, conv.weight, narrow.weight, "
        "and 5 of one dimension",
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("decomposition", True),
        ("embedding_model", True),
        ("fc_out", True),
        ("patch_embeddings", False),
        ("embed_tokens", False),
        ("lm_head", False),
    ],
)
def test_names_are_read_component_by_component(name, expected):
    model = nn.ModuleDict({name: nn.Linear(8, 8)})
    assert (f"{name}.weight" in hidden_matrices(model)) is expected


def test_adapters_of_a_layer_outside_of_the_base_model_go_where_it_would():
    from peft import LoraConfig, get_peft_model

    model = transformers.DebertaForSequenceClassification(transformers.DebertaConfig(**SMALL, vocab_size=50))
    assert not any("pooler" in name for name in hidden_matrices(model))
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["in_proj", "pooler.dense"]))
    assert hidden_matrices(adapted)
    assert not any("pooler" in name for name in hidden_matrices(adapted))
