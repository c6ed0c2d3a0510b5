"""An adaptive softmax over words whose weights are those of their embedding, and the gradients of both.

The gradient of such a weight is as large as the vocabulary, and so are a few rows of logits: most of what a step costs
beside its matrix products is making and adding up such tensors. Here each is made once.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .configuration_transfo_xl import TransfoXLConfig


class Words(torch.autograd.Function):
    """The embedding of a segment [B, Q, d_model], and the weight again, for the softmax: so their gradients meet here.

    They come as the softmax's, new and nobody else's, to which the embedding's are added in place.
    """

    @staticmethod
    def forward(weight: Tensor, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        return F.embedding(input_ids, weight), weight.view_as(weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, embedded: Tensor, weight: Tensor) -> tuple[Tensor, None]:
        (input_ids,) = ctx.saved_tensors
        rows, more = input_ids.flatten(), embedded.flatten(0, 1).to(weight.dtype)
        weight = weight.clone() if torch.is_grad_enabled() else weight
        # Of these two, each adds up in the same order every time on one kind of device, and not on the other.
        if weight.is_cuda:
            return weight.index_put_((rows,), more, accumulate=True), None
        return weight.index_add_(0, rows, more), None


class AdaptiveSoftmax(nn.Module):
    """A softmax over frequent words and clusters of rare ones, the words' weights being those of their embedding.

    `torch.nn.AdaptiveLogSoftmaxWithLoss` has weights of its own, and a projection a cluster that the base model lacks.
    """

    def __init__(self, config: TransfoXLConfig) -> None:
        super().__init__()
        self.cutoffs = config.cutoffs
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.cluster_weight = nn.Parameter(torch.zeros(len(config.cutoffs), config.d_model))
        self.cluster_bias = nn.Parameter(torch.zeros(len(config.cutoffs)))

    def losses(self, hidden: Tensor, words: Tensor, labels: Tensor) -> Tensor:
        """Negative log likelihoods [N], float32 at least, of labels [N] after hidden states [N, d_model].

        Words are [vocab_size, d_model]. Rare ones cost only where they occur.
        """
        return Losses.apply(hidden, words, *self._weights(), labels, self.cutoffs)

    def log_probabilities(self, hidden: Tensor, words: Tensor) -> Tensor:
        """Of every word, [..., vocab_size]."""
        return _log_probabilities(hidden, words, *self._weights(), self.cutoffs)

    def _weights(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.bias, self.cluster_weight, self.cluster_bias


class Losses(torch.autograd.Function):
    """Negative log likelihoods of labels, see `AdaptiveSoftmax.losses`. Kept are the logits, nothing else so large."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        words: Tensor,
        bias: Tensor,
        cluster_weight: Tensor,
        cluster_bias: Tensor,
        labels: Tensor,
        cutoffs: Sequence[int],
    ) -> Tensor:
        first, *_ = edges = [*cutoffs, len(words)]
        cluster = torch.bucketize(labels, labels.new_tensor(cutoffs), right=True)
        in_head = torch.where(cluster == 0, labels, first + cluster - 1)
        weight = torch.cat([words[:first], cluster_weight])
        losses, *kept = _cross_entropy(hidden, weight, torch.cat([bias[:first], cluster_bias]), in_head)
        for index, (low, high) in enumerate(itertools.pairwise(edges), start=1):
            (here,) = torch.where(cluster == index)
            more, *tail = _cross_entropy(hidden[here], words[low:high], bias[low:high], labels[here] - low)
            losses = losses.index_add_(0, here, more)
            kept += [here, *tail]
        ctx.edges = edges
        ctx.save_for_backward(hidden, words, bias, cluster_weight, cluster_bias, labels, *kept)
        return losses

    @staticmethod
    def backward(ctx: Any, of_losses: Tensor) -> tuple[Tensor | None, ...]:
        hidden, words, bias, cluster_weight, cluster_bias, labels, *kept = ctx.saved_tensors
        first, *_ = ctx.edges
        if torch.is_grad_enabled():  # a gradient of the gradient is wanted, so by operations that have one
            inputs = hidden, words, bias, cluster_weight, cluster_bias
            losses = -_log_probabilities(*inputs, ctx.edges[:-1]).gather(1, labels[:, None]).squeeze(1)
            needed = [x for x, needs in zip(inputs, ctx.needs_input_grad, strict=False) if needs]
            found = iter(torch.autograd.grad(losses, needed, of_losses.to(losses.dtype), create_graph=True))
            return tuple(next(found) if needs else None for needs in ctx.needs_input_grad)
        of_words, of_bias = torch.empty_like(words), torch.empty_like(bias)
        of_cluster_weight, of_cluster_bias = torch.empty_like(cluster_weight), torch.empty_like(cluster_bias)
        head, tails = kept[:3], zip(*[iter(kept[3:])] * 4, strict=True)
        of_hidden = _gradients(of_losses, hidden, *head, 0, words[:first], of_words[:first], of_bias[:first])
        of_hidden += _gradients(of_losses, hidden, *head, first, cluster_weight, of_cluster_weight, of_cluster_bias)
        for (low, high), (here, *tail) in zip(itertools.pairwise(ctx.edges), tails, strict=True):
            part = slice(low, high)
            mine = _gradients(of_losses[here], hidden[here], *tail, 0, words[part], of_words[part], of_bias[part])
            of_hidden.index_add_(0, here, mine)
        return of_hidden.to(hidden.dtype), of_words, of_bias, of_cluster_weight, of_cluster_bias, None, None


def _log_probabilities(
    hidden: Tensor, words: Tensor, bias: Tensor, cluster_weight: Tensor, cluster_bias: Tensor, cutoffs: Sequence[int]
) -> Tensor:
    first, *_ = edges = [*cutoffs, len(words)]
    weight = torch.cat([words[:first], cluster_weight])
    head = F.linear(hidden, weight, torch.cat([bias[:first], cluster_bias])).log_softmax(-1)
    parts = [head[..., :first]]
    for index, (low, high) in enumerate(itertools.pairwise(edges)):
        tail = F.linear(hidden, words[low:high], bias[low:high]).log_softmax(-1)
        parts.append(head[..., first + index, None] + tail)
    return torch.cat(parts, dim=-1)


def _cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
    """Losses [N] of a linear layer and softmax; and for `_gradients` the targets, logits, and logs of their sums."""
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    logits = F.linear(hidden.to(dtype), weight.to(dtype), bias.to(dtype))
    exact = torch.promote_types(dtype, torch.float32)
    sums = torch.cat([rows.to(exact).logsumexp(1) for rows in logits.split(_in_block(logits.shape[1], hidden))])
    return sums - logits.gather(1, targets[:, None]).squeeze(1), targets, logits, sums


def _gradients(
    of_losses: Tensor,
    hidden: Tensor,
    targets: Tensor,
    logits: Tensor,
    sums: Tensor,
    start: int,
    weight: Tensor,
    of_weight: Tensor,
    of_bias: Tensor,
) -> Tensor:
    """Of hidden states; those of weight and bias, to which the logits from `start` on belong, are written in place."""
    hidden = hidden.to(logits.dtype)  # autocast ends with forward
    of_hidden = torch.zeros_like(hidden, dtype=sums.dtype)
    width = _in_block(len(hidden), hidden)
    for low in range(0, len(weight), width):
        high = min(low + width, len(weight))
        p = (logits[:, start + low : start + high] - sums[:, None]).exp_()
        target = targets[:, None] - (start + low)
        here = (target >= 0) & (target < high - low)
        p.scatter_add_(1, target.clamp(0, high - low - 1), -here.to(p.dtype))
        p *= of_losses[:, None]
        torch.sum(p, 0, out=of_bias[low:high])
        p = p.to(logits.dtype)
        if of_weight.dtype == p.dtype:
            torch.mm(p.t(), hidden, out=of_weight[low:high])
        else:
            of_weight[low:high] = p.t() @ hidden
        of_hidden += p @ weight[low:high].to(p.dtype)
    return of_hidden


def _in_block(length: int, like: Tensor) -> int:
    """How many rows or columns of `length` to take at a time: what fits a CPU's cache, or keeps a GPU busy."""
    return max(1, (2**22 if like.device.type == "cpu" else 2**26) // max(1, length))
