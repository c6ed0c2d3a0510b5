"""The embedded data set: acceptability judgements in CoLA's format, made here, so that nothing need be downloaded.

The sentences are minimal pairs as linguists build them: two sentences that differ in one word, which agrees with its
head noun in the first and with nothing in the second, while a second noun of either number stands by to mislead:
"The keys near the cabinet are old." / "The keys near the cabinet is old.". The pairs test subject-verb,
determiner-noun and reflexive agreement. A word list cannot tell the two halves apart where the nouns differ in
number; a model has to find the head.

Training and validation share words but no lexical frame: no two nouns that meet in a training sentence, in whatever
template or order, meet in a validation sentence.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from typing import Any

from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, PreTrainedTokenizerFast

from recipes.glue.tasks import TASKS

SENTENCES = {"train": 4096, "validation": 768}
MAX_LENGTH = 128
_SEED = 2024
_VALIDATION_SHARE = 6  # one noun pair in six


@dataclass(frozen=True)
class Noun:
    singular: str
    plural: str
    reflexive: str = ""
    """Set for people whose reflexive pronoun is beyond doubt."""
    person: bool = False

    def form(self, plural: bool) -> str:
        return self.plural if plural else self.singular


def _regular(words: str, **traits: str | bool) -> tuple[Noun, ...]:
    return tuple(Noun(word, word + "s", **traits) for word in words.split())  # type: ignore[arg-type]


_MEN = (*_regular("king uncle brother father boy monk", reflexive="himself", person=True),)
_WOMEN = (*_regular("queen aunt sister mother girl nun", reflexive="herself", person=True),)
_PEOPLE = _MEN + _WOMEN + _regular("doctor guard farmer singer teacher pilot author clerk", person=True)
_THINGS = (
    *_regular("key cabinet lamp door book picture chair table cup letter basket window clock mirror bottle map"),
    *(Noun("box", "boxes"), Noun("knife", "knives"), Noun("shelf", "shelves"), Noun("dish", "dishes")),
)

# What a slot in braces may hold. Nothing here shows number: only the nouns and the word in question do.
_FILLERS = {
    "place": ["near", "behind", "beside", "above", "below", "opposite"],
    "did": ["admired", "greeted", "followed", "trusted", "remembered"],
    "took": ["found", "lost", "moved", "painted", "cleaned"],
    "self": ["blamed", "praised", "saw", "hurt", "prepared"],
    "looks": ["old", "new", "small", "dusty", "famous", "visible", "strange"],
    "when": ["today", "often", "again", "now", "somehow"],
}
_BE = (("is", "are"), ("was", "were"))
_DETERMINERS = (("this", "these"), ("that", "those"))


@dataclass(frozen=True)
class Template:
    """A sentence with holes: {head} governs the agreeing {word}, {other} is the distractor."""

    name: str
    pattern: str
    words: tuple[tuple[str, str], ...]
    """(singular, plural) choices for {word}; empty where the head's own reflexive is meant."""
    heads: tuple[Noun, ...]
    others: tuple[Noun, ...]


_ANY = _PEOPLE + _THINGS
TEMPLATES = (
    Template("prepositional", "the {head} {place} the {other} {word} {looks}", _BE, _ANY, _ANY),
    Template("fronted", "{place} the {other} the {head} {word} {looks}", _BE, _ANY, _ANY),
    Template("existential", "there {word} {count} {looks} {head} {place} the {other}", _BE, _ANY, _ANY),
    Template("subject relative", "the {head} that {did} the {other} {word} {looks}", _BE, _PEOPLE, _PEOPLE),
    Template("object relative", "the {head} that the {other} {did} {word} {looks}", _BE, _PEOPLE, _PEOPLE),
    Template("determined object", "the {other} {took} {word} {looks} {head} {when}", _DETERMINERS, _THINGS, _PEOPLE),
    Template(
        "determined subject",
        "{word} {looks} {head} {place} the {other} fell {when}",
        _DETERMINERS,
        _ANY,
        _ANY,
    ),
    Template("reflexive", "the {head} {place} the {other} {self} {word} {when}", (), _MEN + _WOMEN, _ANY),
)


@dataclass(frozen=True)
class Pair:
    """A minimal pair and the lexical frame it came from."""

    template: str
    head: str
    other: str
    good: str
    bad: str


def _write(template: Template, head: Noun, other: Noun, rng: random.Random) -> Pair:
    head_plural, other_plural = rng.random() < 0.5, rng.random() < 0.5
    words = rng.choice(template.words) if template.words else (head.reflexive, "themselves")
    slots = {slot: rng.choice(choices) for slot, choices in _FILLERS.items()}
    slots |= {"head": head.form(head_plural), "other": other.form(other_plural)}
    slots["count"] = rng.choice(("two", "three", "many")) if head_plural else "one"
    good, bad = (
        template.pattern.format(**slots, word=words[plural]).capitalize() + "."
        for plural in (head_plural, not head_plural)
    )
    return Pair(template.name, head.singular, other.singular, good, bad)


def minimal_pairs(split: str) -> list[Pair]:
    """The pairs of a split, each of another frame, every template in equal parts; the same on every call."""
    rng = random.Random(_SEED)
    noun_pairs = list(itertools.combinations(_ANY, 2))
    rng.shuffle(noun_pairs)
    held_out = len(noun_pairs) // _VALIDATION_SHARE
    allowed = set(noun_pairs[held_out:] if split == "train" else noun_pairs[:held_out])

    rng = random.Random(f"{_SEED} {split}")
    count = SENTENCES[split] // 2 // len(TEMPLATES)
    pairs = []
    for template in TEMPLATES:
        frames = [
            (head, other)
            for head, other in itertools.product(template.heads, template.others)
            if (head, other) in allowed or (other, head) in allowed
        ]
        pairs += [_write(template, head, other, rng) for head, other in rng.sample(frames, count)]
    rng.shuffle(pairs)
    return pairs


def load() -> DatasetDict:
    """Both splits with CoLA's features: `sentence`, `label`, `idx`."""
    features = Features(
        sentence=Value("string"), label=ClassLabel(names=list(TASKS["cola"].labels)), idx=Value("int32")
    )
    splits = {}
    for split in SENTENCES:
        sentences = [(text, label) for pair in minimal_pairs(split) for text, label in ((pair.good, 1), (pair.bad, 0))]
        columns = {
            "sentence": [text for text, _ in sentences],
            "label": [label for _, label in sentences],
            "idx": list(range(len(sentences))),
        }
        splits[split] = Dataset.from_dict(columns, features=features)
    return DatasetDict(splits)


def train_tokenizer(sentences: list[str], vocab_size: int = 150) -> PreTrainedTokenizerFast:
    """A lower-casing word-piece tokenizer, small enough that rarer words come in pieces.

    `tokenizers` numbers the word-inner letters in the order of a randomly seeded hash table and breaks ties between
    merges by those numbers. Naming the letters beforehand, as special tokens, fixes the order; building a fresh
    model from the vocabulary makes plain tokens of them again.
    """
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = sorted({letter for sentence in sentences for letter in sentence.lower() if letter.isalpha()})

    def fresh(model: models.WordPiece) -> Tokenizer:
        tokenizer = Tokenizer(model)
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        return tokenizer

    teacher = fresh(models.WordPiece(unk_token="[UNK]"))
    inner = [f"##{letter}" for letter in letters]
    trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=special + inner, show_progress=False)
    teacher.train_from_iterator(sentences, trainer)

    tokenizer = fresh(models.WordPiece(teacher.get_vocab(), unk_token="[UNK]"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=MAX_LENGTH, **names)


def tiny_bert(tokenizer: PreTrainedTokenizerFast, **labels: Any) -> BertConfig:
    """A BERT small enough for two CPU cores."""
    return BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=256,
        max_position_embeddings=MAX_LENGTH,
        pad_token_id=tokenizer.pad_token_id,
        # BERT's own 0.02 is meant for rows six times as long, and dropout for larger models.
        initializer_range=0.09,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        **labels,
    )
