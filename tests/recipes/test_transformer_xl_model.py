"""The Transformer-XL model: as transformers 4.35.2 computed it, and what its memory means."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from recipes.transformer_xl.attention_transfo_xl import Dropout, RelativeShift
from recipes.transformer_xl.configuration_transfo_xl import TransfoXLConfig
from recipes.transformer_xl.modeling_transfo_xl import TransfoXLLMHeadModel

RECORDED = np.load(Path(__file__).parents[1] / "parity" / "transfo_xl.npz")
TINY = {"vocab_size": 90, "cutoffs": [20, 50], "d_model": 24, "n_layer": 3, "n_head": 3, "d_head": 8, "d_inner": 40}


def tiny(seed: int = 0, **options) -> TransfoXLLMHeadModel:
    torch.manual_seed(seed)
    model = TransfoXLLMHeadModel(TransfoXLConfig(**{**TINY, "mem_len": 10, **options})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


def with_weights_of_theirs(name: str, **options) -> TransfoXLLMHeadModel:
    prefix = f"{name}.weights."
    theirs = {key[len(prefix) :]: torch.tensor(RECORDED[key]) for key in RECORDED.files if key.startswith(prefix)}
    ours = {
        "words.weight": theirs["transformer.word_emb.emb_layers.0.weight"],
        "softmax.bias": theirs["crit.out_layers.0.bias"],
        "softmax.cluster_weight": theirs["crit.cluster_weight"],
        "softmax.cluster_bias": theirs["crit.cluster_bias"],
    }
    for index in range(TINY["n_layer"]):
        their, our = f"transformer.layers.{index}.", f"layers.{index}."
        qkv = theirs[f"{their}dec_attn.qkv_net.weight"]
        width = qkv.shape[0] // 3
        ours[f"{our}attention.q.weight"], ours[f"{our}attention.kv.weight"] = qkv[:width], qkv[width:]
        for here, there in {
            "attention.r.weight": "dec_attn.r_net.weight",
            "attention.out.weight": "dec_attn.o_net.weight",
            "attention.u": "dec_attn.r_w_bias",
            "attention.v": "dec_attn.r_r_bias",
            "attention_norm.weight": "dec_attn.layer_norm.weight",
            "attention_norm.bias": "dec_attn.layer_norm.bias",
            "up.weight": "pos_ff.CoreNet.0.weight",
            "up.bias": "pos_ff.CoreNet.0.bias",
            "down.weight": "pos_ff.CoreNet.3.weight",
            "down.bias": "pos_ff.CoreNet.3.bias",
            "norm.weight": "pos_ff.layer_norm.weight",
            "norm.bias": "pos_ff.layer_norm.bias",
        }.items():
            ours[our + here] = theirs[their + there]
    model = tiny(**options)
    model.load_state_dict(ours)
    return model


@pytest.mark.parametrize(
    ("name", "options"),
    [("plain", {"mem_len": 10}), ("same_length", {"mem_len": 9, "same_length": True, "clamp_len": 5})],
)
def test_loss_and_memory_are_those_of_transformers(name, options):
    model = with_weights_of_theirs(name, **options)
    # Theirs starts from a memory of zeros, which every token attends to; the paper's, and ours, from none.
    mems = (torch.zeros(2, options["mem_len"], TINY["d_model"]),) * TINY["n_layer"]
    for segment in range(4):
        ids, loss, theirs, log_probabilities = (
            torch.tensor(RECORDED[f"{name}.{segment}.{what}"]) for what in ("ids", "loss", "mems", "log_probabilities")
        )
        with torch.no_grad():
            found, scores = model(ids, mems=mems, labels=ids), model(ids, mems=mems)
        torch.testing.assert_close(found.loss, loss.mean(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(torch.stack(found.mems), theirs, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(scores.logits, log_probabilities, rtol=1e-4, atol=1e-4)
        mems = found.mems


def test_the_memory_stands_for_what_was_before():
    # One layer sees the memory's tokens themselves; with more, what those had seen before them counts too.
    model = tiny(mem_len=64)
    text = torch.randint(90, (2, 31))
    with torch.no_grad():
        whole = model(text[:, :30]).logits
        mems, parts = None, []
        for start in (0, 10, 20):
            out = model(text[:, start : start + 10], mems=mems)
            mems = out.mems
            parts.append(out.logits)
        torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-4, atol=1e-4)
        last = model(text[:, 20:30], mems=model(text[:, :20]).mems, labels=text[:, 20:31]).loss
        one_by_one = whole[:, 20:30].gather(-1, text[:, 21:31, None])
        torch.testing.assert_close(last, -one_by_one.mean(), rtol=1e-4, atol=1e-5)


def test_the_memory_is_as_long_as_it_may_be_and_has_no_gradient():
    model = tiny(mem_len=8).train()
    out = model(torch.randint(90, (2, 5)))
    assert [tuple(memory.shape) for memory in out.mems] == [(2, 5, 24)] * 3
    out = model(torch.randint(90, (2, 5)), mems=out.mems)
    assert [tuple(memory.shape) for memory in out.mems] == [(2, 8, 24)] * 3
    assert not any(memory.requires_grad for memory in out.mems)
    assert tiny(mem_len=0)(torch.randint(90, (2, 5))).mems is None


def test_log_probabilities_are_of_all_words_and_agree_with_the_losses():
    for cutoffs in ([20, 50], [], [1], [89]):
        model = tiny(cutoffs=cutoffs)
        ids = torch.randint(90, (3, 12))
        with torch.no_grad():
            scores, loss = model(ids[:, :11]).logits, model(ids[:, :11], labels=ids).loss
        torch.testing.assert_close(scores.exp().sum(-1), torch.ones(3, 11))
        torch.testing.assert_close(loss, -scores.gather(-1, ids[:, 1:, None]).mean())


def test_generate_carries_the_memory_along():
    model, ids = tiny(mem_len=64), torch.randint(90, (2, 9))
    with torch.no_grad():  # or the same words would come whatever was read
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.mul_(0.03)
            elif "norm" in name:
                parameter.fill_(1)

    def greedily(text: torch.Tensor, remembered: int) -> torch.Tensor:
        with torch.no_grad():
            for _ in range(8):
                text = torch.cat([text, model(text[:, -remembered:]).logits[:, -1:].argmax(-1)], dim=1)
        return text

    wanted = greedily(ids, 64)
    assert not torch.equal(wanted, greedily(ids, 1))
    found = model.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0)
    assert torch.equal(found, wanted)
    with torch.no_grad():
        mems = model(ids[:, :4]).mems
    rest = model.generate(ids[:, 4:], mems=mems, max_new_tokens=8, do_sample=False, pad_token_id=0)
    assert torch.equal(rest, wanted[:, 4:])
    sampled = model.generate(ids, max_new_tokens=8, do_sample=True, top_k=5, pad_token_id=0)
    assert sampled.shape == (2, 17) and sampled.max() < 90


def test_what_generate_and_resizing_cannot_do_is_refused():
    model, ids = tiny(), torch.randint(90, (2, 4))
    with pytest.raises(ValueError, match="num_beams must be 1"):
        model.generate(ids, num_beams=2, max_new_tokens=3, pad_token_id=0)
    with pytest.raises(ValueError, match="attention_mask must be all ones"):
        model.generate(ids, attention_mask=torch.tensor([[0, 1, 1, 1]] * 2), max_new_tokens=3, pad_token_id=0)
    with pytest.raises(ValueError, match="cannot be resized"):
        model.resize_token_embeddings(91)


def test_every_weight_learns_and_labels_can_be_left_out():
    model = tiny()
    ids = torch.randint(90, (4, 21))
    model(ids[:, 10:20], mems=model(ids[:, :10]).mems, labels=ids[:, 10:]).loss.backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())
    some = ids.clone()
    some[:, 5:] = -100
    with torch.no_grad():
        torch.testing.assert_close(model(ids, labels=some).loss, model(ids[:, :5], labels=ids[:, :5]).loss)


def test_relative_shift_aligns_distances():
    q, k = 3, 5
    distance = torch.arange(k - 1, -1, -1.0).expand(q, k)
    shifted = RelativeShift.apply(distance)
    for i in range(q):
        for j in range(k - q + i + 1):
            assert shifted[i, j] == k - q + i - j


def test_saved_and_loaded_by_the_auto_classes(tmp_path):
    AutoConfig.register("transfo_xl", TransfoXLConfig, exist_ok=True)
    AutoModelForCausalLM.register(TransfoXLConfig, TransfoXLLMHeadModel, exist_ok=True)
    model, ids = tiny(), torch.randint(90, (2, 9))
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(model(ids).logits, again(ids).logits)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cutoffs": [50, 20]}, "cutoffs must rise"),
        ({"cutoffs": [0, 20]}, "cutoffs must rise"),
        ({"mem_len": -1}, "mem_len must be 0 or more"),
        ({"d_model": 25}, "d_model must be even"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings must be true"),
    ],
)
def test_what_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        TransfoXLConfig(**{**TINY, **options})


def test_cutoffs_beyond_the_vocabulary_are_dropped():
    assert TransfoXLConfig(vocab_size=25000).cutoffs == [20000]


def test_the_base_model_has_the_papers_size():
    with torch.device("meta"):
        model = TransfoXLLMHeadModel(TransfoXLConfig())
    assert round(model.num_parameters() / 1e6) == 151


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_drops_and_scales_as_many(p):
    torch.manual_seed(0)
    x = torch.full((300, 1001), 2.0, requires_grad=True)
    y = Dropout(p)(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(gradient == 0, y == 0)
    kept = y[y != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 2 / (1 - p)), rtol=1e-4, atol=0)
    assert abs((y == 0).double().mean() - p) < 4 * (p * (1 - p) / y.numel()) ** 0.5
    assert (y == 0).any(0).all() and (y == 0).any(1).all()
    assert torch.equal(Dropout(p).eval()(x), x) and torch.equal(Dropout(0.0)(x), x) and not Dropout(1.0)(x).any()


def test_in_bfloat16():
    model, ids = tiny(), torch.randint(90, (2, 21))
    exact = model(ids[:, :10], labels=ids[:, :11])
    with torch.autocast("cpu", torch.bfloat16):
        first = model(ids[:, :10], labels=ids[:, :11])
        second = model(ids[:, 10:20], mems=first.mems, labels=ids[:, 10:])
    second.loss.backward()
    torch.testing.assert_close(first.loss, exact.loss, atol=0.02, rtol=0.01)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_second_derivatives_of_the_whole_model():
    model, ids = tiny().double(), torch.randint(90, (2, 11))
    parameters = list(model.parameters())
    torch.manual_seed(0)
    along = [torch.randn_like(parameter) for parameter in parameters]

    def gradient() -> list[torch.Tensor]:
        return torch.autograd.grad(model(ids[:, :10], labels=ids).loss, parameters, create_graph=True)

    @torch.no_grad()
    def move(step: float) -> None:
        for parameter, direction in zip(parameters, along, strict=True):
            parameter.add_(direction, alpha=step)

    product = torch.autograd.grad(gradient(), parameters, along)
    move(1e-6)
    up = [part.detach() for part in gradient()]
    move(-2e-6)
    for exact, above, below in zip(product, up, gradient(), strict=True):
        difference = (above - below) / 2e-6
        assert (exact - difference).norm() <= 1e-4 * difference.norm() + 1e-8


def test_gradients_of_the_whole_model_are_those_of_its_loss():
    model, ids = tiny().double(), torch.randint(90, (2, 21))
    with torch.no_grad():
        mems = model(ids[:, :10]).mems

    def loss() -> torch.Tensor:
        return model(ids[:, 10:20], mems=mems, labels=ids[:, 10:]).loss

    parameters = dict(model.named_parameters())
    gradients = torch.autograd.grad(loss(), parameters.values())
    torch.manual_seed(0)
    for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
        along = torch.nn.functional.normalize(torch.randn_like(parameter).flatten(), dim=0).view_as(parameter)
        with torch.no_grad():
            ends = []
            for step in (1e-5, -2e-5):
                parameter.add_(along, alpha=step)
                ends.append(loss())
            parameter.add_(along, alpha=1e-5)
        difference = (ends[0] - ends[1]) / 2e-5
        assert difference == pytest.approx((gradient * along).sum().item(), rel=1e-4, abs=1e-7), name
