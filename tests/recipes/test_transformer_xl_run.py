"""Both training scripts from end to end: report, perplexity, going on where they stopped, and several processes."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from hf_winopt.public import ROOT
from recipes.common import RecipeError
from recipes.transformer_xl import run_transformer_xl, run_transformer_xl_no_trainer, text, vocabulary
from recipes.transformer_xl.arguments import parse
from recipes.transformer_xl.experiment import eval_config
from recipes.transformer_xl.modeling_transfo_xl import TransfoXLLMHeadModel

SIZES = "--d_model 16 --n_layer 2 --n_head 2 --d_head 8 --d_inner 24 --cutoffs 5 12 --tgt_len 8 --mem_len 6"
QUIET = "--report_to none --disable_tqdm true --dataloader_pin_memory false --save_strategy no --logging_steps 1"
STEPS = "--max_steps 6 --eval_strategy steps --eval_steps 3 --per_device_train_batch_size 4 --learning_rate 1e-2"
WORDS = ["the", "a", "cat", "dog", "old", "new", "sees", "hears", "fast", "slow", ".", ",", "and", "or", "but"]
TRAINER_4 = transformers.__version__.startswith("4.")
SCRIPTS = {"trainer": run_transformer_xl, "no_trainer": run_transformer_xl_no_trainer}


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of text: 4 rows of it are 5 segments, so that the sixth step begins it anew."""
    folder, choice = tmp_path_factory.mktemp("words"), random.Random(0)
    for split, lines in {"train": 23, "validation": 6, "test": 7}.items():
        text = [" ".join(choice.choices(WORDS, range(len(WORDS), 0, -1), k=6)) for _ in range(lines)]
        (folder / f"{split}.txt").write_text("\n".join(text) + "\n")
    return folder


def run(script: str, words: Path, folder: Path, extra: str = "") -> dict:
    where = ["--dataset_name", str(words), "--output_dir", str(folder)]
    return SCRIPTS[script].main([*where, *f"{SIZES} {QUIET} {STEPS} {extra}".split()])


def losses(results: dict) -> list[float]:
    return [entry["loss"] for entry in results["history"]["train"]]


def assert_same_bits(one: Path, other: Path) -> None:
    first, second = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


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


# ---------------------------------------------------------------------------------- the same, however it is run


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("step", [3, 5])
def test_interrupted_and_resumed_the_same_bits(script, step, words, tmp_path):
    """In the middle of the text, and where it begins anew (after 5 segments); dropout and Win's state included."""
    saving = "--save_strategy steps --save_steps 1 --optim adamw_win --dropout 0.2"
    run(script, words, tmp_path / "whole", saving)
    (tmp_path / "again").mkdir()
    shutil.copytree(tmp_path / "whole" / f"checkpoint-{step}", tmp_path / "again" / f"checkpoint-{step}")
    results = run(script, words, tmp_path / "again", f"{saving} --resume_from_checkpoint")
    assert results["resumed_at_step"] == step
    assert_same_bits(tmp_path / "whole", tmp_path / "again")
    whole, again = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("whole", "again"))
    assert again["metrics"] == whole["metrics"]
    assert again["history"] == whole["history"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_checkpoint_that_does_not_fit_is_refused(script, words, tmp_path):
    """Of another layout of the text, of another model, at the end of the training, or without its memory."""
    run(script, words, tmp_path, "--save_strategy steps --save_steps 3")
    for extra, message in (
        ("--per_device_train_batch_size 2", "4 rows of 40 words in segments of 8, and now there are 2 rows of 80"),
        ("--tgt_len 7", "now there are 4 rows of 40 words in segments of 7"),
        ("--cutoffs 6 11", r"--cutoffs is \[6, 11\], but .*checkpoint-3 was trained with \[5, 12\]"),
        ("--n_layer 3", "--n_layer is 3, but .*checkpoint-3 was trained with 2"),
        ("--max_steps 3", "is at step 3 of 3: nothing is left to train"),
        ("--max_steps -1 --num_train_epochs 0.5", "is at step 3 of 3: nothing is left to train"),
    ):
        with pytest.raises(RecipeError, match=message):
            run(script, words, tmp_path, f"--resume_from_checkpoint {tmp_path}/checkpoint-3 {extra}")
    (tmp_path / "checkpoint-3" / "memory_0.pt").unlink()
    with pytest.raises(RecipeError, match="no whole checkpoint of this script: it has no memory_0"):
        run(script, words, tmp_path, f"--resume_from_checkpoint {tmp_path}/checkpoint-3")


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("memory", [6, 0])
def test_going_on_for_longer_and_by_other_parts(script, memory, words, tmp_path):
    extra = f"--dropout 0 --save_strategy steps --save_steps 3 --lr_scheduler_type constant --mem_len {memory}"
    whole = run(script, words, tmp_path / "whole", f"{extra} --max_steps 8")
    run(script, words, tmp_path / "short", extra)
    parts = "--per_device_train_batch_size 2 --gradient_accumulation_steps 2"
    (tmp_path / "short" / "results.json").unlink()
    again = f"{extra} {parts} --max_steps 8 --resume_from_checkpoint"
    if script == "trainer" and TRAINER_4:
        with pytest.raises(RecipeError, match="batches of 4 in 2 parts are not 4 rows"):
            run(script, words, tmp_path / "short", again)
        return
    longer = run(script, words, tmp_path / "short", again)
    assert longer["training"]["steps"] == 8 and longer["resumed_at_step"] == 6
    assert losses(longer) == pytest.approx(losses(whole), rel=1e-5)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_checkpoint_is_a_model(script, words, tmp_path):
    run(script, words, tmp_path / "run", "--save_strategy steps --save_steps 3")
    results = run("trainer", words, tmp_path / "more", f"--model_name_or_path {tmp_path}/run/checkpoint-6")
    assert (tmp_path / "run" / "checkpoint-6" / "modeling_transfo_xl.py").is_file()
    assert results["history"]["train"][0]["loss"] < 3


def test_the_best_model_by_perplexity_is_the_one_of_the_lowest(words, tmp_path):
    best = "--load_best_model_at_end true --metric_for_best_model perplexity --save_strategy steps --save_steps 1"
    results = run("trainer", words, tmp_path, f"{best} --eval_steps 1 --learning_rate 0.05")
    found = {e["step"]: e["perplexity"] for e in results["history"]["evaluation"] if e["split"] == "validation"}
    state = json.loads((tmp_path / "checkpoint-6" / "trainer_state.json").read_text())
    assert state["best_metric"] == min(found.values()) < max(found.values())


@pytest.mark.parametrize("memory", ["--mem_len 6", "--mem_len 0"])
def test_both_loops_agree(memory, words, tmp_path):
    extra = f"--optim adan --weight_decay 0.02 --dropout 0.1 --warmup_steps 2 --lr_scheduler_type cosine {memory}"
    trainer, plain = (run(script, words, tmp_path / script, extra) for script in SCRIPTS)
    assert losses(trainer) == pytest.approx(losses(plain), rel=1e-5, abs=5e-5)  # older Trainers log four digits
    assert trainer["metrics"]["test"] == pytest.approx(plain["metrics"]["test"], rel=1e-5)
    rates = ([entry["learning_rate"] for entry in results["history"]["train"]] for results in (trainer, plain))
    assert next(rates) == pytest.approx(next(rates))


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(("rows", "times"), [(2, 2), (1, 4)])
def test_accumulated_parts_of_a_batch_are_the_batch(script, rows, times, words, tmp_path):
    whole = run(script, words, tmp_path / "whole", "--dropout 0")
    parts = f"--per_device_train_batch_size {rows} --gradient_accumulation_steps {times}"
    parts = run(script, words, tmp_path / "parts", f"--dropout 0 {parts}")
    assert losses(parts) == pytest.approx(losses(whole), rel=1e-5)
    assert parts["metrics"]["test"]["loss"] == pytest.approx(whole["metrics"]["test"]["loss"], rel=1e-5)


@pytest.mark.parametrize("script", SCRIPTS)
def test_two_processes_are_one_with_the_whole_batch(script, words, tmp_path):
    """And what two saved, one goes on from."""
    extra = "--dropout 0 --save_strategy steps --save_steps 3"
    whole = run(script, words, tmp_path / "one", extra)
    path = Path(SCRIPTS[script].__file__)
    arguments = f"{SIZES} {QUIET} {STEPS} {extra} --per_device_train_batch_size 2 --use_cpu true".split()
    where = ["--dataset_name", str(words), "--output_dir", str(tmp_path / "two")]
    config = ROOT / "recipes" / "accelerate" / "two_cpus.yaml"
    launch = ["-m", "accelerate.commands.launch", "--config_file", str(config)]
    done = subprocess.run(
        [sys.executable, *launch, str(path), *where, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    two = json.loads((tmp_path / "two" / "results.json").read_text())
    assert two["training"]["batch_size"] == 4
    assert losses(two) == pytest.approx(losses(whole), rel=1e-5)
    # Evaluated by two, each half begins without the memory of what is before it.
    assert two["metrics"]["test"]["loss"] == pytest.approx(whole["metrics"]["test"]["loss"], rel=0.1)

    (tmp_path / "go on").mkdir()
    shutil.copytree(tmp_path / "two" / "checkpoint-3", tmp_path / "go on" / "checkpoint-3")
    parts = "--per_device_train_batch_size 2 --gradient_accumulation_steps 2"
    alone = run(script, words, tmp_path / "go on", f"{extra} {parts} --resume_from_checkpoint")
    assert losses(alone) == pytest.approx(losses(whole), rel=1e-5)


@pytest.mark.parametrize("script", SCRIPTS)
def test_bfloat16(script, words, tmp_path):
    results = run(script, words, tmp_path / "bf16", "--bf16 true --use_cpu true")
    exact = run(script, words, tmp_path / "fp32")
    assert results["training"]["precision"] == "bf16"
    assert losses(results) == pytest.approx(losses(exact), rel=0.02)
    if script == "no_trainer" or not TRAINER_4:  # which has no autocast on a CPU
        assert losses(results) != losses(exact)


# ------------------------------------------------------------------------------------------------ settings

CONFIGS = Path(run_transformer_xl.__file__).parent / "configs"
PAPERS = {  # max_steps, learning_rate, warm-up of the Win paper's Table 3 and the Adan paper's Table 4
    "base.yaml": ("adam_win", 200_000, 2.5e-4, 0),
    "base.yaml 50k.yaml": ("adam_win", 50_000, 2.5e-4, 0),
    "base.yaml 100k.yaml": ("adam_win", 100_000, 2.5e-4, 0),
    "base.yaml adam.yaml": ("adamw_torch_fused", 200_000, 2.5e-4, 0),
    "base.yaml adan_50k.yaml": ("adan", 50_000, 1.5e-3, 5000),
    "base.yaml adan_100k.yaml": ("adan", 100_000, 1e-3, 5000),
    "base.yaml adan_200k.yaml": ("adan", 200_000, 1e-3, 5000),
}


@pytest.mark.parametrize("files", PAPERS)
def test_the_papers_settings(files):
    model_args, text_args, args = parse("x", [str(CONFIGS / name) for name in files.split()])
    optim, steps, rate, warmup = PAPERS[files]
    assert (args.optim, args.max_steps, args.learning_rate) == (optim, steps, rate)
    assert args.get_warmup_steps(steps) == warmup and args.weight_decay == (0.02 if optim == "adan" else 0)
    assert args.max_grad_norm == 0.25 and args.per_device_train_batch_size == 60
    assert (text_args.tgt_len, text_args.mem_len) == (150, 150)
    assert eval_config(text_args) == {"mem_len": 640, "clamp_len": 400, "same_length": True}
    assert (model_args.n_layer, model_args.d_model, model_args.d_inner) == (16, 410, 2100)
    if optim == "adan":
        assert args.lr_scheduler_kwargs == {"min_lr": 1e-6} and args.optim_args == "betas=0.9:0.9:0.999"


def test_every_settings_file_is_tested_or_small():
    used = {name for files in PAPERS for name in files.split()}
    assert {path.name for path in CONFIGS.glob("*.yaml")} == used | {"small.yaml"}


def test_the_small_settings_train_the_embedded_text(tmp_path):
    words = "--max_steps 2 --eval_steps 2 --save_strategy no --report_to none --disable_tqdm true"
    results = run_transformer_xl.main([str(CONFIGS / "small.yaml"), *words.split(), "--output_dir", str(tmp_path)])
    assert results["dataset"]["name"] == "embedded" and results["training"]["vocabulary"] > 2000
    assert results["metrics"]["test"]["perplexity"] < results["training"]["vocabulary"]


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
