"""A language that a tiny model learns in a blink: counting, in words. All of it made here, nothing fetched."""

from __future__ import annotations

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
NUMBERS = 20
WORDS = [*SPECIAL.values(), *map(str, range(NUMBERS))]


def lines(count: int) -> list[str]:
    """Twelve numbers, each one more than the last, from another start on every line."""
    return [" ".join(str((start + step) % NUMBERS) for step in range(12)) for start in range(count)]


def tokenizer() -> PreTrainedTokenizerFast:
    """A token for each word."""
    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=32, **SPECIAL)


def model() -> LlamaForCausalLM:
    """With random weights."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(WORDS), **sizes, max_position_embeddings=32))
