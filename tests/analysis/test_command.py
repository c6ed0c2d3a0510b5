"""`hf-winopt hessian` on models and data sets in folders."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap

import pytest
import torch
from datasets import Dataset, DatasetDict, Features, Image, Value
from PIL import Image as Picture
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from hf_winopt import cli
from hf_winopt.analysis import memory
from hf_winopt.analysis.hessian import hessian_spectrum
from hf_winopt.analysis.tasks import load_split, load_task, own_loss

WORDS = list("abcdefgh")
QUICK = ["--probes", "2", "--lanczos-steps", "6", "--quiet", "--device", "cpu"]
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def save_tokenizer(folder):
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)


@pytest.fixture(autouse=True)
def kept(monkeypatch):
    """How often the memory of the process was told to stay, which is not done to that of the tests."""
    calls = []
    monkeypatch.setattr(memory, "keep_freed_memory", lambda: calls.append(True))
    return calls


@pytest.mark.skipif("CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", ()), reason="glibc alone is told")
def test_memory_that_was_freed_is_not_asked_of_the_system_again():
    lines = """
        import resource, torch
        from hf_winopt.analysis import keep_freed_memory
        keep_freed_memory()
        for _ in range(8):  # until one that is aligned fits into what was freed
            torch.ones(1 << 22)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(1 << 22)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(lines)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 400  # 16 MB have 4096 pages


@pytest.fixture(scope="module")
def sentences(tmp_path_factory):
    """A data set of pairs of sentences; its test split has no labels."""
    folder = tmp_path_factory.mktemp("sentences")
    rows = [
        {"first": " ".join(WORDS[: 1 + i % 6]), "second": WORDS[i % 8], "label": i % 2, "idx": i} for i in range(20)
    ]
    Dataset.from_list(rows).to_json(folder / "validation.jsonl")
    Dataset.from_list([{**row, "label": -1} for row in rows]).to_json(folder / "test.jsonl")
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(0)
    BertForSequenceClassification(BertConfig(vocab_size=10, **SIZES)).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def test_a_classifier_of_sentences(classifier, sentences, tmp_path, capsys, kept):
    files = ["--json", str(tmp_path / "h.json"), "--png", str(tmp_path / "h.png")]
    run = ["--lr", "1e-3", "--weight-decay", "0.1", "--run-batch-size", "16", "--rho", "0.01"]
    line = [
        str(classifier),
        "--dataset",
        str(sentences),
        "--split",
        "validation",
        "--samples",
        "13",
        "--batch-size",
        "4",
    ]
    assert cli.main(["hessian", *line, *QUICK, *files, *run]) == 0
    said = capsys.readouterr().out
    written = json.loads((tmp_path / "h.json").read_text())
    assert written["examples"] == 13 and written["steps"] == 6
    assert f"{written['top_eigenvalues'][0]:.4g}" in said
    assert set(written["generalization"]) == {"decoupled", "l2"}
    assert written["run"] == {"lr": 1e-3, "weight_decay": 0.1, "batch_size": 16, "rho": 0.01}
    assert "per dimension (l2 decay)" in said
    assert kept == [True]
    assert (tmp_path / "h.png").read_bytes().startswith(b"\x89PNG")
    assert str(tmp_path) not in json.dumps({**written, "model": "", "dataset": ""})

    # the same by the functions, in batches of another size
    task = load_task(str(classifier), load_split(str(sentences), None, "validation", 13), 13, "cpu")
    assert [key for key in next(iter(task.batches)) if "token" not in key] == ["input_ids", "attention_mask", "labels"]
    seen = hessian_spectrum(task.model, task.batches, own_loss, probes=2, steps=6, progress=False)
    torch.testing.assert_close(seen.top_eigenvalues[:3].tolist(), written["top_eigenvalues"][:3], rtol=1e-3, atol=1e-6)


def test_a_training_of_ours_brings_its_own_numbers(classifier, sentences, tmp_path, capsys):
    shutil.copytree(classifier, tmp_path / "out")
    model = BertForSequenceClassification.from_pretrained(classifier)
    data = [{"input_ids": torch.tensor([2, 3, 4]), "labels": i % 2} for i in range(8)]
    arguments = TrainingArguments(
        str(tmp_path / "out"), optim="adamw_win", learning_rate=2e-3, weight_decay=0.05, max_steps=2,
        per_device_train_batch_size=4, use_cpu=True, report_to="none", disable_tqdm=True, save_strategy="no",
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=data)
    trainer.train()
    trainer.save_model()
    assert (
        cli.main(
            [
                "hessian",
                str(tmp_path / "out"),
                "--dataset",
                str(sentences),
                "--split",
                "validation",
                *QUICK,
                "--rho",
                "2",
            ]
        )
        == 0
    )
    assert "with lr 0.002, weight_decay 0.05, batch_size 4, rho 2:" in capsys.readouterr().out


def test_a_classifier_of_images(tmp_path, capsys):
    torch.manual_seed(0)
    config = ViTConfig(image_size=8, patch_size=4, num_labels=3, **SIZES)
    ViTForImageClassification(config).save_pretrained(tmp_path / "model")
    ViTImageProcessor(size={"height": 8, "width": 8}).save_pretrained(tmp_path / "model")
    pictures = [Picture.new("L", (10, 10), 20 * i) for i in range(6)]
    features = Features({"img": Image(), "fine_label": Value("int64")})
    rows = {"img": pictures, "fine_label": [0, 1, 2, 0, 1, 2]}
    DatasetDict({"test": Dataset.from_dict(rows, features=features)})["test"].to_parquet(tmp_path / "data.parquet")
    (tmp_path / "data").mkdir()
    (tmp_path / "data.parquet").rename(tmp_path / "data" / "test.parquet")
    assert cli.main(["hessian", str(tmp_path / "model"), "--dataset", str(tmp_path / "data"), *QUICK]) == 0
    assert "6 examples of test" in capsys.readouterr().out


def test_a_language_model(tmp_path, capsys):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=10, n_positions=8, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "model")
    save_tokenizer(tmp_path / "model")
    (tmp_path / "data").mkdir()
    Dataset.from_list([{"text": " ".join(WORDS)}] * 5).to_json(tmp_path / "data" / "test.jsonl")
    assert cli.main(["hessian", str(tmp_path / "model"), "--dataset", str(tmp_path / "data"), *QUICK]) == 0
    assert "5 examples of test" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--split", "test"], "labels must lie in 0 to 1, as the model's do; got -1. A test split may be without"),
        (["--split", "dev"], "--split must be one of .*validation.*; got 'dev'"),
        (["--split", "validation", "--lr", "0.1"], "the term needs --weight-decay, --run-batch-size too"),
        (["--split", "validation", "--probes", "0"], "must be a whole number >= 1; got '0'"),
        (["--split", "dev", "--lr", "0", "--weight-decay", "0", "--run-batch-size", "1"], "lr must be .*got 0.0"),
        (["--split", "dev", "--json", "."], "--json . is a folder"),
    ],
)
def test_what_cannot_be_is_refused_in_words(options, words, classifier, sentences, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["hessian", str(classifier), "--dataset", str(sentences), *QUICK, *options])
    assert stopped.value.code == 2
    assert re.search(words, capsys.readouterr().err)


def test_a_model_of_another_task_is_refused(sentences, tmp_path, capsys):
    BertForMaskedLM(BertConfig(vocab_size=10, **SIZES)).save_pretrained(tmp_path)
    with pytest.raises(SystemExit):
        cli.main(["hessian", str(tmp_path), "--dataset", str(sentences), "--split", "validation", *QUICK])
    assert "got BertForMaskedLM. For others there is hf_winopt.analysis.hessian_spectrum" in capsys.readouterr().err
