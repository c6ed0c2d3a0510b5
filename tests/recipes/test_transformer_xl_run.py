"""Both training scripts from end to end: report, perplexity, card, what is saved, and what is refused."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from hf_winopt.public import ROOT
from recipes.common import RecipeError
from recipes.transformer_xl import text, vocabulary
from recipes.transformer_xl.modeling_transfo_xl import TransfoXLLMHeadModel
from tests.recipes.transformer_xl import SCRIPTS, run, write_words


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_words(tmp_path_factory.mktemp("words"))


# --------------------------------------------------------------------------------------------------- a run


@pytest.fixture(scope="module", params=SCRIPTS)
def finished(request, words, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("secret-user") / "run"
    run(request.param, words, folder, "--optim adam_win --optim_args reckless_steps=2:8 --eval_mem_len 200")
    return folder


def test_results(finished):
    results = json.loads((finished / "results.json").read_text(), parse_constant=pytest.fail)
    assert results["optimizer"]["name"] == "adam_win"
    assert results["training"]["steps"] == 6
    assert results["training"]["train_words"] == 23 * 7 // 4 * 4
    assert results["training"]["eval_mem_len"] == 200 and results["training"]["mem_len"] == 6
    assert [entry["step"] for entry in results["history"]["train"]] == [1, 2, 3, 4, 5, 6]
    found = [(entry["step"], entry["split"]) for entry in results["history"]["evaluation"]]
    assert found == [(3, "validation"), (6, "validation"), (6, "test")]
    for split in ("validation", "test"):
        scores = results["metrics"][split]
        assert math.isclose(scores["perplexity"], math.exp(scores["loss"]), rel_tol=1e-9)
    assert results["words_per_second"] > 0 and results["seconds_per_step"] > 0
    assert results["metrics"]["validation"]["loss"] == results["history"]["evaluation"][1]["loss"]


def test_perplexity_is_that_of_the_whole_text_in_one_piece(finished, words):
    results = json.loads((finished / "results.json").read_text())
    tokenizer = vocabulary.load(str(finished))
    model = TransfoXLLMHeadModel.from_pretrained(finished).eval()
    ids = vocabulary.encode(tokenizer, text.load(str(words))["test"])
    assert len(ids) == 7 * 7
    labels = torch.cat([torch.tensor([tokenizer.eos_token_id]), ids])[None]
    with torch.no_grad():
        loss = model(labels[:, :-1], labels=labels).loss
        log_probabilities = model(labels[:, :-1]).logits
    assert math.isclose(results["metrics"]["test"]["loss"], loss, rel_tol=1e-5)
    by_hand = -log_probabilities.gather(2, labels[:, 1:, None]).mean()
    assert math.isclose(by_hand, loss, rel_tol=1e-5)


def test_report_names_no_place(finished):
    for name in ("results.json", "README.md"):
        content = (finished / name).read_text()
        assert "secret-user" not in content
        assert str(Path.home()) not in content.replace(ROOT.as_posix(), "")
    assert (finished / "curves.png").stat().st_size > 5000


def test_card(finished):
    card = ModelCard.load(finished / "README.md")
    assert {(result.dataset_split, result.metric_type) for result in card.data.eval_results} == {
        (split, metric) for split in ("validation", "test") for metric in ("perplexity", "loss")
    }
    assert "trust_remote_code=True" in card.text and "adam_win" in card.text


def test_loads_anywhere_with_the_code_that_is_saved_with_it(finished, tmp_path):
    """By the Auto classes, in a process that cannot import this project; and as the card says."""
    shutil.copytree(finished, tmp_path / "copy")
    usage = ModelCard.load(finished / "README.md").text.split("```python\n")[1].split("```")[0]
    usage = usage.replace("FOLDER_OR_HUB_NAME", "copy").replace("the module", "the cat")
    check = "ids = tokenizer('the cat', return_tensors='pt').input_ids\nprint(model(ids).logits.sum().item())"
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environ |= {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"{usage}\n{check}\nimport sys; assert 'recipes' not in sys.modules"],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    generated, total = done.stdout.splitlines()[-2:]
    assert generated.startswith("the cat") and 2 < len(generated.split()) <= 52
    tokenizer, model = vocabulary.load(str(finished)), TransfoXLLMHeadModel.from_pretrained(finished).eval()
    with torch.no_grad():
        assert math.isclose(model(**tokenizer("the cat", return_tensors="pt")).logits.sum(), float(total), rel_tol=1e-6)


def test_going_on_with_a_trained_model(finished, words, tmp_path):
    before = json.loads((finished / "results.json").read_text())["metrics"]["validation"]["loss"]
    results = run("trainer", words, tmp_path / "more", f"--model_name_or_path {finished} --learning_rate 0")
    assert results["model"]["source"] == "local"
    assert results["history"]["train"][0]["loss"] < 1.2 * before


# ---------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("--tgt_len 60", "161 words make 4 streams of 40, and a segment takes 60 and one more"),
        ("--per_device_train_batch_size 500", "161 words make 500 streams of 0"),
        ("--per_device_eval_batch_size 60", "text of 42 words cannot be evaluated as 60 streams"),
        ("--tgt_len 0", "--tgt_len 0: must be at least 1"),
        ("--eval_mem_len -1", "--eval_mem_len -1: must be at least 0"),
        ("--cutoffs 9 4", "cutoffs must rise"),
        ("--min_count 1000", "holds no word that occurs 1000 times"),
        ("--model_name_or_path no-such-model", "no-such-model"),
        ("--n_layers 3", "unknown argument --n_layers: did you mean --n_layer?"),
        ("--fp16 true --use_cpu true", "fp16 needs a GPU"),
        ("--label_smoothing_factor 0.1", "--label_smoothing_factor does nothing in this script"),
        ("--d_model 15", "d_model must be even"),
    ],
)
def test_what_is_refused_before_any_training(script, extra, message, words, tmp_path):
    with pytest.raises(RecipeError, match=message):
        run(script, words, tmp_path / "run", extra)
    assert not (tmp_path / "run" / "results.json").exists()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("--load_best_model_at_end true --save_steps 3 --save_strategy steps", "--load_best_model_at_end does nothing"),
        ("--gradient_checkpointing true", "--gradient_checkpointing does nothing"),
        ("--lr_scheduler_type reduce_lr_on_plateau", "reduce_lr_on_plateau is Trainer's"),
    ],
)
def test_what_only_trainer_does_is_refused(extra, message, words, tmp_path):
    with pytest.raises(RecipeError, match=message):
        run("no_trainer", words, tmp_path / "run", extra)


def test_an_empty_corpus_and_another_vocabulary(finished, words, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(words, other)
    (other / "train.txt").write_text((words / "train.txt").read_text().replace("cat", "mouse").replace("dog", "rat"))
    vocabulary.build(text.load(str(other))["train"]).save_pretrained(tmp_path / "tokenizer")
    with pytest.raises(RecipeError, match="in the vocabulary, but not where"):
        run("trainer", words, tmp_path / "x", f"--model_name_or_path {finished} --tokenizer_name {tmp_path}/tokenizer")
    run("trainer", words, tmp_path / "run", "--save_strategy steps --save_steps 3")
    (tmp_path / "run" / "results.json").unlink()
    with pytest.raises(RecipeError, match=r"in the vocabulary, but not where .*checkpoint-6 was trained"):
        run("trainer", other, tmp_path / "run", "--resume_from_checkpoint --max_steps 9")
    (other / "train.txt").write_text("one two three\n" * 50)
    vocabulary.build(text.load(str(other))["train"]).save_pretrained(tmp_path / "tokenizer")
    with pytest.raises(RecipeError, match=r"the vocabulary has 5 words, but .* was trained with"):
        run("trainer", words, tmp_path / "x", f"--model_name_or_path {finished} --tokenizer_name {tmp_path}/tokenizer")
    (other / "train.txt").write_text("\n \n")
    with pytest.raises(RecipeError, match="the train text is empty"):
        run("trainer", other, tmp_path / "x")


def test_what_is_there_is_not_overwritten(finished, words):
    with pytest.raises(RecipeError, match="holds a finished run"):
        run("trainer", words, finished)
