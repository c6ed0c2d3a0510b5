"""The same training, however it is run: resumed, in parts, by either script, by several processes, in bfloat16."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import transformers

from hf_winopt.public import ROOT
from recipes.common import RecipeError
from tests.recipes.transformer_xl import QUIET, SCRIPTS, SIZES, STEPS, assert_same_bits, losses, run, write_words

TRAINER_4 = transformers.__version__.startswith("4.")


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_words(tmp_path_factory.mktemp("words"))


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
