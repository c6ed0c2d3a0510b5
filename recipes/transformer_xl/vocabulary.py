"""Word-level vocabularies: the words of a text, the most frequent first, as a tokenizer of transformers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from recipes.common import RecipeError

UNKNOWN, END = "<unk>", "<eos>"


def build(lines: Iterable[str], size: int | None = None, min_count: int = 1) -> PreTrainedTokenizerFast:
    """The tokenizer whose words are what white space separates in the lines.

    Args:
        lines: of the training text.
        size: at most so many words, those of lines' ends and unknown ones among them; None for all.
        min_count: words that occur less often are unknown.

    Raises:
        RecipeError: the lines hold no word, or `size` leaves room for none.
    """
    if size is not None and size < 3:
        raise RecipeError(f"a vocabulary of {size} holds no word beside {UNKNOWN} and {END}: give it more")
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    room = {} if size is None else {"vocab_size": size}
    trainer = trainers.WordLevelTrainer(
        special_tokens=[END, UNKNOWN], min_frequency=min_count, show_progress=False, **({"vocab_size": 2**31} | room)
    )
    # WikiText has unknown words already; counted as a word, that name would get a second place.
    words = (" ".join(word for word in line.split() if word not in (UNKNOWN, END)) for line in lines)
    tokenizer.train_from_iterator(words, trainer)
    if tokenizer.get_vocab_size() == 2:
        raise RecipeError(f"the training text holds no word that occurs {min_count} times or more")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=UNKNOWN, eos_token=END, pad_token=END)


def encode(tokenizer: PreTrainedTokenizerFast, lines: Sequence[str]) -> Tensor:
    """All words of the lines in one tensor of int64, the end of each line a word of its own; none is dropped."""
    end = tokenizer.eos_token_id
    ids = [word for line in tokenizer.backend_tokenizer.encode_batch(list(lines)) for word in (*line.ids, end)]
    return torch.tensor(ids, dtype=torch.int64)


def check_fits(tokenizer: PreTrainedTokenizerFast, vocab_size: int, where: str) -> None:
    """Refuse a vocabulary that is not the one a checkpoint was trained with.

    Raises:
        RecipeError: it has another number of words.
    """
    if len(tokenizer) != vocab_size:
        raise RecipeError(
            f"the vocabulary has {len(tokenizer)} words, but {where} was trained with {vocab_size}: "
            "use the tokenizer that was saved with it"
        )
