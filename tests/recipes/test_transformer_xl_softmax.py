"""The adaptive softmax: its losses and their gradients, beside PyTorch's own operations on all words at once."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from recipes.transformer_xl import softmax_transfo_xl
from recipes.transformer_xl.configuration_transfo_xl import TransfoXLConfig
from recipes.transformer_xl.softmax_transfo_xl import AdaptiveSoftmax, Words

VOCABULARY, WIDTH, ROWS = 60, 8, 40


def parts(cutoffs: list[int], labels: torch.Tensor | None = None) -> tuple[AdaptiveSoftmax, torch.Tensor, ...]:
    torch.manual_seed(0)
    softmax = AdaptiveSoftmax(TransfoXLConfig(vocab_size=VOCABULARY, cutoffs=cutoffs, d_model=WIDTH)).double()
    for parameter in softmax.parameters():
        torch.nn.init.normal_(parameter)
    words = torch.randn(VOCABULARY, WIDTH, dtype=torch.float64, requires_grad=True)
    hidden = torch.randn(ROWS, WIDTH, dtype=torch.float64, requires_grad=True)
    return softmax, words, hidden, torch.randint(VOCABULARY, (ROWS,)) if labels is None else labels


def gradients(losses: torch.Tensor, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    weights = torch.linspace(-1, 2, len(losses), dtype=losses.dtype)
    found = torch.autograd.grad(losses, inputs, weights, allow_unused=True)
    return [torch.zeros_like(x) if gradient is None else gradient for x, gradient in zip(inputs, found, strict=True)]


@pytest.mark.parametrize("block", [1, 64, 2**22])
@pytest.mark.parametrize("cutoffs", [[], [20], [10, 30, 50]])
def test_losses_and_gradients_are_those_of_all_log_probabilities(cutoffs, block, monkeypatch):
    monkeypatch.setattr(softmax_transfo_xl, "_in_block", lambda length, like: max(1, block // max(1, length)))
    softmax, words, hidden, labels = parts(cutoffs)
    inputs = [hidden, words, *softmax.parameters()]
    losses = softmax.losses(hidden, words, labels)
    expected = F.nll_loss(softmax.log_probabilities(hidden, words), labels, reduction="none")
    torch.testing.assert_close(losses, expected)
    for mine, theirs in zip(gradients(losses, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("word", [0, 25, 59])
def test_clusters_without_a_label(word):
    softmax, words, hidden, labels = parts([10, 30, 50], torch.full((ROWS,), word))
    inputs = [hidden, words, *softmax.parameters()]
    expected = F.nll_loss(softmax.log_probabilities(hidden, words), labels, reduction="none")
    for mine, theirs in zip(
        gradients(softmax.losses(hidden, words, labels), inputs), gradients(expected, inputs), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


def test_no_labels_at_all():
    softmax, words, hidden, labels = parts([10, 30], torch.empty(0, dtype=torch.int64))
    losses = softmax.losses(hidden[:0], words, labels)
    assert losses.shape == (0,)
    losses.sum().backward()
    assert not words.grad.any()


def test_under_autocast():
    softmax, words, hidden, labels = parts([10, 30])
    softmax, words, hidden = softmax.float(), words.detach().float().requires_grad_(), hidden.detach().float()
    hidden.requires_grad_()
    inputs = [hidden, words, *softmax.parameters()]
    exact = softmax.losses(hidden, words, labels)
    with torch.autocast("cpu", torch.bfloat16):
        losses = softmax.losses(hidden, words, labels)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, exact, atol=0.1, rtol=0.02)
    for mine, theirs in zip(gradients(losses, inputs), gradients(exact, inputs), strict=True):
        assert mine.dtype == torch.float32
        assert (mine - theirs).norm() < 0.02 * theirs.norm()


def test_the_gradient_of_the_gradient():
    softmax, words, hidden, labels = parts([10, 30])
    inputs = [hidden, words, *softmax.parameters()]
    expected = F.nll_loss(softmax.log_probabilities(hidden, words), labels, reduction="none")
    products = []
    for losses in (softmax.losses(hidden, words, labels), expected):
        first = torch.autograd.grad(losses.square().sum(), inputs, create_graph=True)
        products.append(torch.autograd.grad(sum(gradient.sin().sum() for gradient in first), inputs))
    for mine, theirs in zip(*products, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_both_uses_of_the_words_add_up():
    torch.manual_seed(0)
    weight = torch.randn(VOCABULARY, WIDTH, dtype=torch.float64, requires_grad=True)
    ids = torch.randint(VOCABULARY, (3, 5))

    def both(embedded: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        return (embedded.sin() @ words.t()).logsumexp(-1).sum()

    (mine,) = torch.autograd.grad(both(*Words.apply(weight, ids)), weight)
    (theirs,) = torch.autograd.grad(both(F.embedding(ids, weight), weight), weight)
    torch.testing.assert_close(mine, theirs)
    (embedding_alone,) = torch.autograd.grad(Words.apply(weight, ids)[0].sum(), weight)
    assert embedding_alone.sum() == ids.numel() * WIDTH
