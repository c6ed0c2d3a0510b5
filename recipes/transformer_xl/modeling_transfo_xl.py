"""Transformer-XL as a transformers model; pushed with a checkpoint as custom code, so it imports nothing of ours.

B sequences, Q tokens of the segment, M of the memory, K = M + Q; E are word embeddings and R relative positions, as
in the paper's Section 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.utils import ModelOutput

from .attention_transfo_xl import Dropout, Layer, RelativeAttention
from .configuration_transfo_xl import TransfoXLConfig
from .softmax_transfo_xl import AdaptiveSoftmax, Words

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
        self.dropout = Dropout(config.dropout)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        mems: Memory | None = None,
        labels: Tensor | None = None,
        attention_mask: Tensor | None = None,
        return_dict: bool | None = None,
        **_: Any,
    ) -> TransfoXLOutput | tuple[Tensor, ...]:
        """One segment.

        Args:
            input_ids: [B, Q].
            mems: the memory that the segment before returned; None at the start of a text.
            labels: the tokens themselves, [B, Q]: each is predicted from those before it, and the first from none. Or
                [B, Q + 1], with the token that follows the segment, so that none is left out. -100 is not predicted.
            attention_mask: all ones, as a tokenizer gives it for texts of equal length.
            return_dict: a tuple instead, if false.

        Raises:
            ValueError: a mask is not all ones. There is no padding: what is remembered of it would be attended to.
        """
        if attention_mask is not None and not attention_mask.all():
            raise ValueError("attention_mask must be all ones: give texts of equal length, or one at a time")
        x, words = Words.apply(self.words.weight, input_ids)
        x = self.dropout(x * self.config.d_model**0.5)
        length, kept = input_ids.shape[1], 0 if mems is None else mems[0].shape[1]
        positions = self.dropout(self._positions(kept + length, x))
        mask = self._mask(length, kept, x)
        inputs = []
        for index, layer in enumerate(self.layers):
            inputs.append(x)
            context = x if mems is None else torch.cat([mems[index], x], dim=1)
            x = layer(x, context, positions, mask)
        x = self.dropout(x)
        output = TransfoXLOutput(
            loss=None if labels is None else self._loss(x, words, labels),
            logits=self.softmax.log_probabilities(x, words) if labels is None else None,
            mems=self._next_memory(inputs, mems),
        )
        return output if return_dict is not False else output.to_tuple()

    # ---------------------------------------------------------------------------- generate(): the memory is the cache

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        mems: Memory | None = None,
        attention_mask: Tensor | None = None,
        prompt_is_read: bool = False,
        **_: Any,
    ) -> dict[str, Any]:
        if prompt_is_read and mems is not None:
            return {"input_ids": input_ids[:, -1:], "mems": mems}
        return {"input_ids": input_ids, "mems": mems, "attention_mask": attention_mask}

    def _update_model_kwargs_for_generation(
        self, outputs: TransfoXLOutput, model_kwargs: dict[str, Any], *_: Any, **__: Any
    ) -> dict[str, Any]:
        return {**model_kwargs, "mems": outputs.mems, "prompt_is_read": True}

    def _beam_search(self, *_: Any, **__: Any) -> Any:
        raise ValueError("num_beams must be 1: beams would mix up their memories")

    # ------------------------------------------------------------------------------------------------- parts of forward

    def _loss(self, hidden: Tensor, words: Tensor, labels: Tensor) -> Tensor:
        targets = labels[:, 1:]
        hidden = hidden[:, : targets.shape[1]]
        counted = targets != -100
        return self.softmax.losses(hidden[counted], words, targets[counted]).mean()

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
        length = inputs[0].shape[1]
        if mems is not None and length < self.config.mem_len:
            older = self.config.mem_len - length
            inputs = [torch.cat([before[:, -older:], x], dim=1) for before, x in zip(mems, inputs, strict=True)]
        return tuple(x[:, -self.config.mem_len :].detach() for x in inputs)

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

    def resize_token_embeddings(self, *_: Any, **__: Any) -> nn.Embedding:
        raise ValueError("the vocabulary of a Transformer-XL cannot be resized: its clusters are cut by frequency")

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.words = value


# So that a saved model takes its code along, and `trust_remote_code=True` is enough to load it.
TransfoXLConfig.register_for_auto_class()
TransfoXLLMHeadModel.register_for_auto_class("AutoModelForCausalLM")
