"""The sizes of a Transformer-XL; pushed with a checkpoint as custom code, so it imports nothing but transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PretrainedConfig


class TransfoXLConfig(PretrainedConfig):
    """Of "Transformer-XL: Attentive Language Models Beyond a Fixed-Length Context" (2019); defaults are its base model.

    Args:
        vocab_size: words, the most frequent first.
        cutoffs: where the adaptive softmax cuts the vocabulary: words from one cutoff to the next share a cluster.
            Those beyond the vocabulary are dropped; without any the softmax is a plain one.
        d_model, n_layer, n_head, d_head, d_inner: width, layers, heads, width of a head, inner width of the
            feed-forward part.
        mem_len: hidden states of how many tokens before a segment are kept for it. May be changed after training.
        clamp_len: distances beyond this count as this; 0 for no limit.
        same_length: every token sees equally many tokens before it; otherwise all that are kept.
        dropout, dropatt: of hidden states, and of attention weights.
        init_std: standard deviation of all initial weights; biases begin at 0, norms at 1.
        layer_norm_epsilon: of the layer norms, which come after each part of a layer.
    """

    model_type = "transfo_xl"

    def __init__(
        self,
        vocab_size: int = 267735,
        cutoffs: Sequence[int] = (20000, 40000, 200000),
        d_model: int = 410,
        n_layer: int = 16,
        n_head: int = 10,
        d_head: int = 41,
        d_inner: int = 2100,
        mem_len: int = 150,
        clamp_len: int = 0,
        same_length: bool = False,
        dropout: float = 0.1,
        dropatt: float = 0.0,
        init_std: float = 0.02,
        layer_norm_epsilon: float = 1e-5,
        tie_word_embeddings: bool = True,
        **kwargs: Any,
    ) -> None:
        if list(cutoffs) != sorted(set(cutoffs)) or min(cutoffs, default=1) < 1:
            raise ValueError(f"cutoffs must rise from 1 on, each given once; got {list(cutoffs)}")
        if not tie_word_embeddings:
            raise ValueError("tie_word_embeddings must be true: words share their weights in embedding and softmax")
        if d_model % 2:
            raise ValueError(f"d_model must be even, for as many sines as cosines; got {d_model}")
        if mem_len < 0:
            raise ValueError(f"mem_len must be 0 or more, not {mem_len}")
        self.vocab_size = vocab_size
        self.cutoffs = [cutoff for cutoff in cutoffs if cutoff < vocab_size]
        self.d_model = d_model
        self.n_layer = n_layer
        self.n_head = n_head
        self.d_head = d_head
        self.d_inner = d_inner
        self.mem_len = mem_len
        self.clamp_len = clamp_len
        self.same_length = same_length
        self.dropout = dropout
        self.dropatt = dropatt
        self.init_std = init_std
        self.layer_norm_epsilon = layer_norm_epsilon
        super().__init__(tie_word_embeddings=tie_word_embeddings, **kwargs)

    @property
    def hidden_size(self) -> int:
        """As transformers calls `d_model`."""
        return self.d_model

    @property
    def num_hidden_layers(self) -> int:
        """As transformers calls `n_layer`."""
        return self.n_layer
