"""The task table, the embedded data, and what is refused before any training."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, Value

from recipes.common import RecipeError
from recipes.glue import embedded
from recipes.glue.data import load_task
from recipes.glue.tasks import TASKS, get_task

ROOT = Path(__file__).resolve().parents[2]
PAIRS = {split: embedded.minimal_pairs(split) for split in embedded.SENTENCES}


# ---------------------------------------------------------------------------------------------------- tasks


def test_the_nine_tasks():
    assert list(TASKS) == ["cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli"]
    assert [task.name for task in TASKS.values() if task.is_regression] == ["stsb"]
    assert [task.name for task in TASKS.values() if len(task.validation) > 1] == ["mnli"]
    assert {task.name: task.num_labels for task in TASKS.values() if task.num_labels != 2} == {"stsb": 1, "mnli": 3}
    # The same two labels, in opposite order: WNLI is the only task where entailment is 1.
    assert get_task("wnli").labels == get_task("rte").labels[::-1] == ("not_entailment", "entailment")


@pytest.mark.parametrize(("wrong", "hint"), [("SST-2", "sst2"), ("colla", "cola"), ("squad", "the tasks are cola, ")])
def test_unknown_task_names_near_ones(wrong, hint):
    with pytest.raises(RecipeError, match=hint):
        get_task(wrong)


# ------------------------------------------------------------------------------------------------- embedded


def test_embedded_format_and_balance():
    data = load_task(get_task("cola"), "embedded")
    for split, size in embedded.SENTENCES.items():
        assert data[split].features == {
            "sentence": Value("string"),
            "label": ClassLabel(names=["unacceptable", "acceptable"]),
            "idx": Value("int32"),
        }
        assert data[split]["idx"][:] == list(range(size))
        assert sum(data[split]["label"]) * 2 == size
        assert all(text[0].isupper() and text.endswith(".") for text in data[split]["sentence"])


def test_a_pair_differs_in_one_word():
    for pair in PAIRS["train"] + PAIRS["validation"]:
        good, bad = pair.good.lower().split(), pair.bad.lower().split()
        assert sum(a != b for a, b in zip(good, bad, strict=True)) == 1


def test_templates_have_equal_parts():
    for split, pairs in PAIRS.items():
        parts = Counter(pair.template for pair in pairs)
        assert len(parts) == len(embedded.TEMPLATES)
        assert set(parts.values()) == {embedded.SENTENCES[split] // 2 // len(embedded.TEMPLATES)}


def test_the_splits_share_no_lexical_frame():
    nouns = {split: {frozenset((pair.head, pair.other)) for pair in pairs} for split, pairs in PAIRS.items()}
    assert not nouns["train"] & nouns["validation"]
    for pairs in PAIRS.values():
        frames = [(pair.template, pair.head, pair.other) for pair in pairs]
        assert len(set(frames)) == len(frames)


def test_validation_has_no_new_words():
    words = {
        split: {word for pair in pairs for text in (pair.good, pair.bad) for word in text.lower().strip(".").split()}
        for split, pairs in PAIRS.items()
    }
    assert words["validation"] <= words["train"]


def test_words_alone_do_not_give_it_away():
    """Every agreeing word stands in about as many good as bad sentences."""
    good = Counter(word for pair in PAIRS["train"] for word in pair.good.lower().strip(".").split())
    bad = Counter(word for pair in PAIRS["train"] for word in pair.bad.lower().strip(".").split())
    for word in ("is", "are", "was", "were", "this", "these", "that", "those"):
        assert 0.8 < good[word] / bad[word] < 1.25, word


def fingerprint() -> str:
    data = embedded.load()
    tokenizer = embedded.train_tokenizer(data["train"]["sentence"][:])
    everything = [data[split].to_dict() for split in data], sorted(tokenizer.get_vocab().items())
    return hashlib.sha256(repr(everything).encode()).hexdigest()


def test_another_process_makes_the_same():
    code = "from tests.recipes.test_glue_data import fingerprint; print(fingerprint())"
    environ = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"}
    other = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == fingerprint()


def test_tokenizer_knows_every_piece_and_survives_saving(tmp_path):
    from transformers import AutoTokenizer

    data = embedded.load()
    tokenizer = embedded.train_tokenizer(data["train"]["sentence"][:])
    sentences = data["validation"]["sentence"][:]
    ids = tokenizer(sentences)["input_ids"]
    assert tokenizer.unk_token_id not in {number for row in ids for number in row}
    assert {row[0] for row in ids} == {tokenizer.cls_token_id}
    assert {row[-1] for row in ids} == {tokenizer.sep_token_id}
    tokenizer.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)(sentences)["input_ids"] == ids


# -------------------------------------------------------------------------------------------- local folders


def write(folder: Path, task: str, **splits: dict[str, list]) -> Path:
    (folder / task).mkdir(parents=True, exist_ok=True)
    for split, columns in splits.items():
        Dataset.from_dict(columns).to_parquet(folder / task / f"{split}-00000-of-00001.parquet")
    return folder


GOOD = {"sentence": ["a", "b"], "label": [0, 1], "idx": [0, 1]}


def refused(folder: Path | str, message: str, task: str = "cola") -> None:
    with pytest.raises(RecipeError, match=message):
        load_task(get_task(task), str(folder))


def test_local_folder(tmp_path):
    rows = {"premise": ["a"], "hypothesis": ["b"], "label": [2], "idx": [0]}
    unlabelled = {**rows, "label": [-1]}
    write(tmp_path, "mnli", train=rows, validation_matched=rows, validation_mismatched=rows, test_matched=unlabelled)
    data = load_task(get_task("mnli"), str(tmp_path))
    assert set(data) == {"train", "validation_matched", "validation_mismatched"}


def test_missing_parts_are_named(tmp_path):
    refused(tmp_path / "nowhere", "no such folder")
    write(tmp_path, "rte", train=GOOD)
    refused(tmp_path, "no folder cola/ .it has rte.")
    write(tmp_path, "cola", validation=GOOD)
    refused(tmp_path, r"no train-\*.parquet")
    write(tmp_path, "cola", train={"text": ["a"], "label": [0]})
    refused(tmp_path, "train: no column 'sentence' .there is text, label.")
    write(tmp_path, "cola", train={"sentence": ["a"]})
    refused(tmp_path, "train: no column 'label'")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 2], "labels go from 0 to 1, row 1 has 2"),
        ([0.5, 1.0], "row 0 has 0.5"),
        ([1, -1], "unlabelled rows"),
        (["yes", "no"], "labels must be numbers, not 'yes'"),
        ([None, 1], "row 0 has nan"),
    ],
)
def test_labels_out_of_range(tmp_path, labels, message):
    bad = {"sentence": ["a"] * len(labels), "label": labels}
    write(tmp_path, "cola", train=GOOD, validation=bad)
    refused(tmp_path, f"validation: .*{message}")


def test_scores_out_of_range(tmp_path):
    rows = {"sentence1": ["a"], "sentence2": ["b"], "label": [4.8]}
    write(tmp_path, "stsb", train=rows, validation=rows)
    assert load_task(get_task("stsb"), str(tmp_path))["train"]["label"][0] == 4.8
    write(tmp_path, "stsb", train={**rows, "label": [5.2]})
    refused(tmp_path, "scores go from 0 to 5, row 0 has 5.2", task="stsb")


def test_an_empty_file(tmp_path):
    refused(write(tmp_path, "cola", train=GOOD, validation={"sentence": [], "label": []}), '"validation".* no data')


def test_unreadable_file(tmp_path):
    write(tmp_path, "cola", train=GOOD, validation=GOOD)
    (tmp_path / "cola" / "train-00000-of-00001.parquet").write_bytes(b"not parquet")
    refused(tmp_path, "cannot read")


def test_the_hub_out_of_reach_says_what_to_do():
    refused("nobody/no-such-data", "embedded")


def test_embedded_has_cola_only():
    refused("embedded", "no mnli, only cola", task="mnli")
