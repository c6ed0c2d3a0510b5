"""Transformer-XL as a transformers model; pushed with a checkpoint as custom code, so it imports nothing of ours.

Symbols are those of the paper, Section 3.3: E word embeddings, R relative positions, u and v the content and position
biases, W_q, W_k,E, W_k,R and W_v the projections. B sequences, Q tokens of the segment, M of the memory, K = M + Q.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GenerationMixin, PreTrainedModel
from transformers.utils import ModelOutput

from .configuration_transfo_xl import TransfoXLConfig

Memory = tuple[Tensor, ...]
"""For each layer its inputs of the last tokens, [B, M, d_model]; no gradient flows into them."""


@dataclass
class TransfoXLOutput(ModelOutput):
    """What the model returns.

    Args:
        loss: mean negative log likelihood of the labels, where labels were given.
        logits: log probabilities of the next word, [B, Q, vocab_size], where no labels were given; during training and
            evaluation nothing of this size is made.
        mems: the memory for the next segment.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    mems: Memory | None = None


class RelativeAttention(nn.Module):
    """Attention whose scores are content and relative position, (a) to (d) of the paper's equation."""

    def __init__(self, config: TransfoXLConfig) -> None:
        super().__init__()
        self.n_head, self.d_head, self.dropatt = config.n_head, config.d_head, config.dropatt
        width = config.n_head * config.d_head
        self.q = nn.Linear(config.d_model, width, bias=False)
        self.kv = nn.Linear(config.d_model, 2 * width, bias=False)
        self.r = nn.Linear(config.d_model, width, bias=False)
        self.out = nn.Linear(width, config.d_model, bias=False)
        self.u = nn.Parameter(torch.zeros(config.n_head, config.d_head))
        self.v = nn.Parameter(torch.zeros(config.n_head, config.d_head))

    def forward(self, x: Tensor, context: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """From x [B, Q, d_model], the memory and x [B, K, d_model], positions [K, d_model] and a mask [Q, K].

        The mask is added to the scores: 0 where a token sees another, -inf where not.
        """
        q = self._heads(self.q(x))
        k, value = (self._heads(part) for part in self.kv(context).chunk(2, dim=-1))
        r = self.r(positions).view(-1, self.n_head, self.d_head).permute(1, 2, 0)  # [n_head, d_head, K]
        scale = self.d_head**-0.5
        distance = relative_shift((q + self.v[:, None]) @ r) * scale + mask  # (b) and (d)
        dropout = self.dropatt if self.training else 0.0
        y = F.scaled_dot_product_attention(
            q + self.u[:, None], k, value, attn_mask=distance, dropout_p=dropout, scale=scale
        )
        return self.out(y.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.n_head, self.d_head).transpose(1, 2)


def relative_shift(scores: Tensor) -> Tensor:
    """From scores by distance, [..., Q, K] with the largest distance first, to scores by the place of the key.

    Row i is moved left by Q - 1 - i; what enters at the right is seen by nobody, and is masked.
    """
    *_, q, k = scores.shape
    return F.pad(scores, (1, 0)).flatten(-2)[..., q:].unflatten(-1, (q, k))


class Layer(nn.Module):
    """Attention and a feed-forward part, each added to its input and normed after."""

    def __init__(self, config: TransfoXLConfig) -> None:
        super().__init__()
        self.attention = RelativeAttention(config)
        self.attention_norm = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.up = nn.Linear(config.d_model, config.d_inner)
        self.down = nn.Linear(config.d_inner, config.d_model)
        self.norm = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, context: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        x = self.attention_norm(x + self.dropout(self.attention(x, context, positions, mask)))
        return self.norm(x + self.dropout(self.down(self.dropout(F.relu(self.up(x))))))


class AdaptiveSoftmax(nn.Module):
    """A softmax over frequent words and clusters of rare ones, the words' weights being those of their embedding.

    `torch.nn.AdaptiveLogSoftmaxWithLoss` has weights of its own, and a projection a cluster that the base model lacks.
    """

    def __init__(self, config: TransfoXLConfig) -> None:
        super().__init__()
        self.edges = [*config.cutoffs, config.vocab_size]
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.cluster_weight = nn.Parameter(torch.zeros(len(config.cutoffs), config.d_model))
        self.cluster_bias = nn.Parameter(torch.zeros(len(config.cutoffs)))

    def losses(self, hidden: Tensor, words: Tensor, labels: Tensor) -> Tensor:
        """Negative log likelihoods [N] of labels [N] after hidden states [N, d_model]; words are [vocab_size, d_model].

        Rare words cost only where they occur.
        """
        first = self.edges[0]
        cluster = torch.bucketize(labels, torch.tensor(self.edges[:-1], device=labels.device), right=True)
        in_head = torch.where(cluster == 0, labels, first + cluster - 1)
        losses = F.cross_entropy(self._head(hidden, words), in_head, reduction="none")
        for index, (low, high) in enumerate(zip(self.edges, self.edges[1:], strict=False), start=1):
            (here,) = torch.where(cluster == index)
            logits = F.linear(hidden[here], words[low:high], self.bias[low:high])
            losses = losses.index_add(0, here, F.cross_entropy(logits, labels[here] - low, reduction="none"))
        return losses

    def log_probabilities(self, hidden: Tensor, words: Tensor) -> Tensor:
        """Of every word, [..., vocab_size]."""
        first = self.edges[0]
        head = self._head(hidden, words).log_softmax(-1)
        parts = [head[..., :first]]
        for index, (low, high) in enumerate(zip(self.edges, self.edges[1:], strict=False)):
            tail = F.linear(hidden, words[low:high], self.bias[low:high]).log_softmax(-1)
            parts.append(head[..., first + index, None] + tail)
        return torch.cat(parts, dim=-1)

    def _head(self, hidden: Tensor, words: Tensor) -> Tensor:
        first = self.edges[0]
        weight = torch.cat([words[:first], self.cluster_weight])
        return F.linear(hidden, weight, torch.cat([self.bias[:first], self.cluster_bias]))


class TransfoXLLMHeadModel(PreTrainedModel, GenerationMixin):
    """The language model: a segment of tokens and the memory of those before it in, the next memory out."""

    config_class = TransfoXLConfig
    base_model_prefix = "transformer"
    _is_stateful = True  # what was generated cannot be taken back out of the memory

    def __init__(self, config: TransfoXLConfig) -> None:
        super().__init__(config)
        self.words = nn.Embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.n_layer))
        self.softmax = AdaptiveSoftmax(config)
        self.dropout = nn.Dropout(config.dropout)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        mems: Memory | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
        **_: Any,
    ) -> TransfoXLOutput | tuple[Tensor, ...]:
        """One segment.

        Args:
            input_ids: [B, Q].
            mems: the memory that the segment before returned; None at the start of a text.
            labels: the tokens themselves, [B, Q]: each is predicted from those before it, and the first from none. Or
                [B, Q + 1], with the token that follows the segment, so that none is left out. -100 is not predicted.
            return_dict: a tuple instead, if false.
        """
        x = self.dropout(self.words(input_ids) * self.config.d_model**0.5)
        length, kept = input_ids.shape[1], 0 if mems is None else mems[0].shape[1]
        positions = self.dropout(self._positions(kept + length, x))
        mask = self._mask(length, kept, x)
        inputs = []
        for index, layer in enumerate(self.layers):
            inputs.append(x)
            context = x if mems is None else torch.cat([mems[index], x], dim=1)
            x = layer(x, context, positions, mask)
        x = self.dropout(x)
        output = TransfoXLOutput(mems=self._next_memory(inputs, mems))
        if labels is None:
            output.logits = self.softmax.log_probabilities(x, self.words.weight)
        else:
            output.loss = self._loss(x, labels)
        return output if return_dict is not False else output.to_tuple()

    # ---------------------------------------------------------------------------- generate(): the memory is the cache

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    def prepare_inputs_for_generation(self, input_ids: Tensor, mems: Memory | None = None, **_: Any) -> dict[str, Any]:
        return {"input_ids": input_ids if mems is None else input_ids[:, -1:], "mems": mems}

    def _update_model_kwargs_for_generation(
        self, outputs: TransfoXLOutput, model_kwargs: dict[str, Any], *_: Any, **__: Any
    ) -> dict[str, Any]:
        return {**model_kwargs, "mems": outputs.mems}

    # ------------------------------------------------------------------------------------------------- parts of forward

    def _loss(self, hidden: Tensor, labels: Tensor) -> Tensor:
        targets = labels[:, 1:]
        hidden = hidden[:, : targets.shape[1]]
        counted = targets != -100
        return self.softmax.losses(hidden[counted], self.words.weight, targets[counted]).mean()

    def _positions(self, k: int, like: Tensor) -> Tensor:
        """R: sines and cosines of the distances K - 1 to 0, [K, d_model]."""
        distance = torch.arange(k - 1, -1, -1, device=like.device, dtype=torch.float32)
        if self.config.clamp_len > 0:
            distance = distance.clamp(max=self.config.clamp_len)
        half = torch.arange(0, self.config.d_model, 2, device=like.device, dtype=torch.float32)
        angle = torch.outer(distance, 10000 ** (-half / self.config.d_model))
        return torch.cat([angle.sin(), angle.cos()], dim=-1).to(like.dtype)

    def _mask(self, q: int, m: int, like: Tensor) -> Tensor:
        """[Q, K]: 0 for what a token sees, itself and what is before it, otherwise -inf."""
        seen = torch.ones(q, m + q, dtype=torch.bool, device=like.device).tril(m)
        if self.config.same_length:  # itself and mem_len - 1 before it
            seen = seen.triu(m + 1 - max(1, self.config.mem_len))
        return torch.zeros(q, m + q, dtype=like.dtype, device=like.device).masked_fill(~seen, float("-inf"))

    def _next_memory(self, inputs: list[Tensor], mems: Memory | None) -> Memory | None:
        if self.config.mem_len == 0:
            return None
        joined = inputs if mems is None else [torch.cat(pair, dim=1) for pair in zip(mems, inputs, strict=True)]
        return tuple(x[:, -self.config.mem_len :].detach() for x in joined)

    def _init_weights(self, module: nn.Module) -> None:
        std = self.config.init_std
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=std)
            if getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            nn.init.normal_(module.weight, 1.0, std)
            nn.init.zeros_(module.bias)
        elif isinstance(module, RelativeAttention):
            nn.init.normal_(module.u, std=std)
            nn.init.normal_(module.v, std=std)
        elif isinstance(module, AdaptiveSoftmax):
            nn.init.normal_(module.cluster_weight, std=std)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.words

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.words = value
