"""Word-level vocabularies: the words of a text, the most frequent first, as a tokenizer of transformers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.utils import cached_file

from recipes.common import RecipeError

TOKENIZER_FILE = "tokenizer.json"  # the name that transformers gives it
UNKNOWN, END = "<unk>", "<eos>"

_BLOCK = 20_000  # lines that are encoded at a time


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
    trainer = trainers.WordLevelTrainer(
        vocab_size=size or 2**31, min_frequency=min_count, special_tokens=[END, UNKNOWN], show_progress=False
    )
    # WikiText has unknown words already; counted as a word, that name would get a second place.
    words = (" ".join(word for word in line.split() if word not in (UNKNOWN, END)) for line in lines)
    tokenizer.train_from_iterator(words, trainer)
    if tokenizer.get_vocab_size() == 2:
        raise RecipeError(f"the training text holds no word that occurs {min_count} times or more")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=UNKNOWN,
        bos_token=END,
        eos_token=END,
        pad_token=END,
        model_input_names=["input_ids", "attention_mask"],
    )


def encode(tokenizer: PreTrainedTokenizerBase, lines: Sequence[str]) -> Tensor:
    """All words of the lines in one tensor of int64, the end of each line a word of its own; none is dropped."""
    end, blocks = tokenizer.eos_token_id, [torch.empty(0, dtype=torch.int64)]
    for start in range(0, len(lines), _BLOCK):  # WikiText-103 as Python numbers would fill the memory
        block = tokenizer.backend_tokenizer.encode_batch_fast(list(lines[start : start + _BLOCK]))
        blocks.append(torch.tensor([word for line in block for word in (*line.ids, end)], dtype=torch.int64))
    return torch.cat(blocks)


def load(name: str) -> PreTrainedTokenizerBase:
    """The vocabulary that was saved with a model, in a folder or on the Hub.

    Raises:
        RecipeError: there is none.
    """
    try:
        cached_file(name, TOKENIZER_FILE)
        return PreTrainedTokenizerFast.from_pretrained(name)  # AutoTokenizer would ask for the model's code
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RecipeError(f"cannot load a vocabulary from {name!r}: {reason}") from error


def check_fits(tokenizer: PreTrainedTokenizerBase, trained: PreTrainedTokenizerBase | int, where: str) -> None:
    """Refuse a vocabulary that is not the one a checkpoint was trained with.

    Args:
        tokenizer: the vocabulary of the text.
        trained: that of the checkpoint, or only its number of words.
        where: the checkpoint.

    Raises:
        RecipeError: they differ in number, or in a word.
    """
    size = trained if isinstance(trained, int) else len(trained)
    advice = "use the vocabulary that was saved with it (--tokenizer_name)"
    if len(tokenizer) != size:
        raise RecipeError(f"the vocabulary has {len(tokenizer)} words, but {where} was trained with {size}: {advice}")
    if isinstance(trained, int):
        return
    if other := set(tokenizer.get_vocab().items()) - set(trained.get_vocab().items()):
        word, number = min(other, key=lambda item: item[1])
        raise RecipeError(f"word {number} is {word!r} in the vocabulary, but not where {where} was trained: {advice}")
