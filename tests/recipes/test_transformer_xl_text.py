"""Word-level vocabularies, and the texts they are made from."""

from __future__ import annotations

import pytest
from datasets import Dataset, DatasetDict
from transformers import AutoTokenizer

from recipes.common import RecipeError
from recipes.transformer_xl import text, vocabulary

LINES = ["the cat saw the dog", "", "the dog saw <unk> cats"]


def test_the_most_frequent_words_come_first():
    tokenizer = vocabulary.build(LINES)
    words = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    assert words[:3] == ["<eos>", "<unk>", "the"] and set(words[3:5]) == {"dog", "saw"}
    assert sorted(tokenizer.get_vocab().values()) == list(range(7))
    assert len(vocabulary.build(LINES, size=4)) == 4
    assert set(vocabulary.build(LINES, min_count=2).get_vocab()) == {"<eos>", "<unk>", "the", "dog", "saw"}


def test_no_word_is_dropped_and_every_line_ends():
    tokenizer = vocabulary.build(LINES, min_count=2)
    ids = vocabulary.encode(tokenizer, LINES)
    expected = ["the", "<unk>", "saw", "the", "dog", "<eos>", "<eos>", "the", "dog", "saw", "<unk>", "<unk>", "<eos>"]
    assert tokenizer.convert_ids_to_tokens(ids.tolist()) == expected


def test_saved_and_loaded(tmp_path):
    tokenizer = vocabulary.build(LINES)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again("the dog saw it").input_ids == tokenizer("the dog saw it").input_ids
    vocabulary.check_fits(again, 7, "the checkpoint")
    with pytest.raises(RecipeError, match="has 7 words, but the checkpoint was trained with 9"):
        vocabulary.check_fits(again, 9, "the checkpoint")


@pytest.mark.parametrize(("lines", "options"), [([], {}), (["", " "], {}), (LINES, {"min_count": 9})])
def test_a_text_without_words_is_refused(lines, options):
    with pytest.raises(RecipeError, match="holds no word"):
        vocabulary.build(lines, **options)
    with pytest.raises(RecipeError, match="vocabulary of 2 holds no word"):
        vocabulary.build(LINES, size=2)


def test_the_embedded_text_is_there():
    found = text.load(text.EMBEDDED)
    words = {split: sum(len(line.split(" ")) for line in lines) for split, lines in found.items()}
    assert words["train"] > 100_000 and min(words["validation"], words["test"]) > 2_000
    assert found == text.load(text.EMBEDDED)
    assert not set(found["test"][:5]) & set(found["train"])


def test_text_files(tmp_path):
    for split in text.SPLITS:
        (tmp_path / f"{split}.txt").write_text(f"a {split} line\n\nanother\n")
    assert text.load(str(tmp_path))["test"] == ["a test line", "", "another"]
    (tmp_path / "test.txt").write_bytes("\ufeffa\x0cb\u2028c\r\nlast".encode())
    assert text.load(str(tmp_path))["test"] == ["a\x0cb\u2028c", "last"]
    (tmp_path / "test.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(RecipeError, match=r"test\.txt is not UTF-8"):
        text.load(str(tmp_path))
    (tmp_path / "test.txt").write_text("\n \n")
    with pytest.raises(RecipeError, match="the test text is empty"):
        text.load(str(tmp_path))
    (tmp_path / "validation.txt").unlink()
    with pytest.raises(RecipeError, match=r"no validation\.txt in"):
        text.load(str(tmp_path))


def test_a_data_set(tmp_path, monkeypatch):
    rows = {split: Dataset.from_dict({"text": [f"a {split} line", ""]}) for split in text.SPLITS}
    monkeypatch.setattr(text, "load_dataset", lambda name, config: DatasetDict(rows))
    assert text.load("some/wikitext", "small")["validation"] == ["a validation line", ""]
    rows["test"] = rows["test"].rename_column("text", "sentence")
    with pytest.raises(RecipeError, match="no column 'text' in test"):
        text.load("some/wikitext", "small")


def test_what_cannot_be_loaded_is_said_with_what_can(monkeypatch):
    with pytest.raises(RecipeError, match="--dataset_name embedded"):
        text.load("no-such/text-anywhere")
