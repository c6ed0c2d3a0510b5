"""run_glue_no_trainer.py beside run_glue.py: the same losses; and both going on, and by two processes."""

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
from accelerate import Accelerator
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, set_seed

from hf_winopt.public import ROOT
from recipes.accelerated import loss_weight
from recipes.common import RecipeError
from recipes.glue import embedded, run_glue, run_glue_no_trainer
from recipes.glue.tasks import get_task

SCRIPTS = {"trainer": run_glue, "no_trainer": run_glue_no_trainer}
DATA = "--max_train_samples 76 --max_eval_samples 20 --max_length 32"  # 10 batches of 8, the last with 4
STEPS = "--max_steps 8 --per_device_train_batch_size 8 --learning_rate 1e-3 --logging_steps 1"
QUIET = "--report_to none --disable_tqdm true --dataloader_pin_memory false --save_strategy no --eval_strategy no"


def save_model(folder: Path, dropout: float) -> Path:
    tokenizer = embedded.train_tokenizer(embedded.load()["train"]["sentence"][:])
    config = embedded.tiny_bert(tokenizer)
    config.update({"hidden_size": 32, "hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout})
    set_seed(1)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def dropping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "dropping", 0.1)


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without dropout, which two processes draw otherwise than one."""
    return save_model(tmp_path_factory.mktemp("models") / "exact", 0.0)


def arguments(model: Path, folder: Path, extra: str = "", data: str = "embedded", task: str = "cola") -> list[str]:
    where = ["--task_name", task, "--dataset_name", str(data), "--output_dir", str(folder)]
    return [*where, "--model_name_or_path", str(model), *f"{DATA} {STEPS} {QUIET} {extra}".split()]


def run(script: str, *what: object, **more: object) -> dict:
    return SCRIPTS[script].main(arguments(*what, **more))


def losses(results: dict) -> list[float]:
    return [entry["loss"] for entry in results["history"]["train"]]


def assert_same(trainer: dict, plain: dict) -> None:
    assert losses(plain) == pytest.approx(losses(trainer), rel=1e-6, abs=5e-5)  # older Trainers log four digits
    rates = ([entry["learning_rate"] for entry in results["history"]["train"]] for results in (trainer, plain))
    assert next(rates) == pytest.approx(next(rates))
    for split, scores in trainer["metrics"].items():
        assert plain["metrics"][split] == pytest.approx(scores, rel=1e-6, nan_ok=True)
    assert plain["training"] == trainer["training"] and plain["model"] == trainer["model"]
    assert plain["history"].keys() == trainer["history"].keys()


# ------------------------------------------------------------------------------------- the same as Trainer


@pytest.mark.parametrize(
    "extra",
    [
        "--optim adamw_win --weight_decay 0.01 --warmup_steps 3",
        "--optim adan --gradient_accumulation_steps 2 --max_grad_norm 0.1",
        # 10 batches are steps of 3, 3, 3 and 1, each of which counts as much as the others.
        "--optim adamw_torch --gradient_accumulation_steps 3 --eval_strategy epoch --lr_scheduler_type cosine",
        "--optim adamw_torch --logging_steps 2 --gradient_accumulation_steps 3 --data_seed 7",
        "--optim adamw_torch --dataloader_drop_last true --num_train_epochs 2.2 --max_steps -1",
    ],
    ids=["adamw_win", "accumulated", "odd accumulated", "data_seed", "drop_last"],
)
def test_both_loops_agree(extra, dropping, tmp_path):
    trainer, plain = (run(script, dropping, tmp_path / script, f"--max_steps 20 {extra}") for script in SCRIPTS)
    assert len(losses(trainer)) == (10 if "logging_steps" in extra else 20)
    assert_same(trainer, plain)


def test_every_weight_has_its_decay_and_dropout_its_numbers(dropping, tmp_path):
    """To the bit: what a log of four digits could hide."""
    extra = "--optim adamw_torch --weight_decay 0.5 --eval_strategy steps --eval_steps 3"
    for script in SCRIPTS:
        run(script, dropping, tmp_path / script, extra)
    assert_same_bits(*(tmp_path / script for script in SCRIPTS))


def local_data(folder: Path, task: str, labels: list[float]) -> Path:
    first, second = get_task(task).columns
    words = ("key", "cabinet", "author", "guard", "nun", "knife", "vase")
    texts = [f"the {words[i % 7]} near the {words[i % 5]}s" for i in range(40)]
    rows = {first: texts, second: texts[::-1], "label": (labels * 20)[:40]}
    (folder / task).mkdir()
    for split in ("train", *get_task(task).validation):
        Dataset.from_dict(rows).to_parquet(folder / task / f"{split}-00000-of-00001.parquet")
    return folder


@pytest.mark.parametrize(("task", "labels"), [("stsb", [0.0, 2.5, 4.0, 5.0, 1.0]), ("mnli", [0, 1, 2, 2])])
def test_regression_and_two_validation_sets(task, labels, dropping, tmp_path):
    data = local_data(tmp_path, task, labels)
    extra = "--eval_strategy steps --eval_steps 4 --max_eval_samples 39 --label_names labels"
    trainer, plain = (run(script, dropping, tmp_path / script, extra, data=data, task=task) for script in SCRIPTS)
    assert_same(trainer, plain)
    found, theirs = plain["history"]["evaluation"], trainer["history"]["evaluation"]
    assert len(found) == 2 * len(get_task(task).validation)
    for entry, other in zip(found, theirs, strict=True):
        assert entry["step"] == other["step"] and entry["split"] == other["split"]
        assert entry["loss"] == pytest.approx(other["loss"], rel=1e-6)


def test_what_is_left_behind(dropping, tmp_path):
    run("no_trainer", dropping, tmp_path, "--optim adamw_win --optim_args reckless_steps=2:8")
    results = json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
    assert results["optimizer"]["options"]["reckless_steps"] == [2.0, 8.0]
    assert results["command"].startswith("python recipes/glue/run_glue_no_trainer.py --task_name cola")
    assert results["seconds_per_step"] > 0 and results["resumed_at_step"] == 0
    assert (tmp_path / "curves.png").stat().st_size > 5000
    assert "# dropping on synthetic agreement pairs, trained with adamw_win" in (tmp_path / "README.md").read_text()
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert model.config.id2label == {0: "unacceptable", 1: "acceptable"}
    with pytest.raises(RecipeError, match="holds a finished run"):
        run("no_trainer", dropping, tmp_path)


def test_a_tracker_gets_the_log(dropping, tmp_path, monkeypatch):
    seen, configs = [], []
    monkeypatch.setattr(Accelerator, "init_trackers", lambda self, name, config: configs.append((name, config)))
    monkeypatch.setattr(Accelerator, "log", lambda self, values, step: seen.append((step, set(values))))
    run("no_trainer", dropping, tmp_path, "--max_steps 2")
    ((name, config),) = configs
    assert name == "glue" and config["steps"] == 2 and config["learning_rate"] == 1e-3
    assert seen[:2] == [(1, {"loss", "learning_rate"}), (2, {"loss", "learning_rate"})]
    assert seen[2] == (2, {"eval_loss", "eval_matthews_correlation"})


def test_weights_of_an_epoch():
    assert [loss_weight(batch, 10, 1) for batch in (0, 9)] == [1, 1]
    assert [loss_weight(batch, 8, 3) for batch in range(8)] == [1, 1, 1, 1, 1, 1, 1.5, 1.5]


# -------------------------------------------------------------------------------------------------- going on


def assert_same_bits(one: Path, other: Path) -> None:
    first, second = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def whole(dropping, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    run("no_trainer", dropping, folder, SAVING)
    return folder


# 10 batches of 8 in steps of 3, 3, 3 and 1: an epoch has 4 steps.
SAVING = "--optim adamw_win --gradient_accumulation_steps 3 --save_strategy steps --save_steps 1 --max_steps 7 "
SAVING += "--eval_strategy steps --eval_steps 2"


@pytest.mark.parametrize("step", [2, 4, 6])
def test_interrupted_and_resumed_the_same_bits(step, whole, dropping, tmp_path):
    """In the middle of an epoch, at its end, and in the middle of the next; dropout and Win's state included."""
    shutil.copytree(whole / f"checkpoint-{step}", tmp_path / f"checkpoint-{step}")
    results = run("no_trainer", dropping, tmp_path, f"{SAVING} --resume_from_checkpoint")
    assert results["resumed_at_step"] == step
    assert_same_bits(whole, tmp_path)
    undisturbed = json.loads((whole / "results.json").read_text())
    assert results["metrics"] == undisturbed["metrics"]
    assert results["history"] == undisturbed["history"]


def test_a_checkpoint_is_a_model(whole, tmp_path):
    results = run("trainer", whole / "checkpoint-7", tmp_path)
    assert results["model"]["name"] == "checkpoint-7"


def test_old_checkpoints_are_deleted(dropping, tmp_path):
    run("no_trainer", dropping, tmp_path, f"{SAVING} --save_total_limit 2")
    assert {path.name for path in tmp_path.glob("*checkpoint*")} == {"checkpoint-6", "checkpoint-7"}


def test_a_checkpoint_that_does_not_fit_is_refused(whole, dropping, tmp_path):
    where = f"{SAVING} --resume_from_checkpoint {whole}/checkpoint-4"
    with pytest.raises(RecipeError, match="is at step 4 of 4: nothing is left to train"):
        run("no_trainer", dropping, tmp_path / "run", f"{where} --max_steps -1 --num_train_epochs 1")
    with pytest.raises(RecipeError, match=r"checkpoint-4: it was saved by a script without Trainer"):
        run("trainer", dropping, tmp_path / "run", where)
    other = ["--task_name", "cola", "--dataset_name", "embedded", *f"{DATA} {STEPS} {QUIET} {where}".split()]
    with pytest.raises(RecipeError, match=r"cannot go on from .*checkpoint-4: Error"):
        run_glue_no_trainer.main([*other, "--output_dir", str(tmp_path / "run")])
    run("trainer", dropping, tmp_path / "theirs", SAVING.replace("--save_steps 1", "--save_steps 3"))
    with pytest.raises(RecipeError, match="checkpoint-3: it was saved by Trainer, go on"):
        run("no_trainer", dropping, tmp_path, f"{SAVING} --resume_from_checkpoint {tmp_path}/theirs/checkpoint-3")


# --------------------------------------------------------------------------------------------- two processes


def launch(script: str, argv: list[str]) -> subprocess.CompletedProcess[str]:
    config = ROOT / "recipes" / "accelerate" / "two_cpus.yaml"
    program = ["-m", "accelerate.commands.launch", "--config_file", str(config), SCRIPTS[script].__file__]
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *program, *argv, "--use_cpu", "true"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.mark.parametrize("script", SCRIPTS)
def test_two_processes_are_one_with_the_doubled_batch(script, exact, tmp_path):
    """Over the end of an epoch, which 64 rows make 4 steps long; and what two saved, one goes on from."""
    extra = "--max_train_samples 64 --max_steps 7 --eval_strategy steps --eval_steps 4 --optim adamw_win"
    extra += " --save_strategy steps --save_steps 6"
    one = run(script, exact, tmp_path / "one", f"{extra} --per_device_train_batch_size 16")
    done = launch(script, arguments(exact, tmp_path / "two", f"{extra} --per_device_eval_batch_size 4"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("holds the model and its report") == 1
    two = json.loads((tmp_path / "two" / "results.json").read_text())
    assert two["training"] == one["training"]
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    for name, value in one["metrics"]["validation"].items():
        # Of the last 4 of 20 rows one process finds the loss, while the other reads some again, which do not count.
        assert math.isclose(two["metrics"]["validation"][name], value, rel_tol=1e-5)

    shutil.copytree(tmp_path / "two" / "checkpoint-6", tmp_path / "go on" / "checkpoint-6")
    parts = "--gradient_accumulation_steps 2 --resume_from_checkpoint"
    alone = run(script, exact, tmp_path / "go on", f"{extra} {parts}")
    assert alone["resumed_at_step"] == 6
    assert losses(alone) == pytest.approx(losses(one), rel=1e-5)


# -------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("--task_name coal", "did you mean cola"),
        ("--lerning_rate 1", "unknown argument --lerning_rate: did you mean --learning_rate"),
        ("--label_smoothing_factor 0.1", "--label_smoothing_factor does nothing in this script"),
        ("--eval_on_start true", "--eval_on_start does nothing in this script"),
        ("--logging_first_step true", "--logging_first_step does nothing in this script"),
        ("--report_to codecarbon", "--report_to codecarbon: Accelerate has trackers for .*tensorboard"),
        (
            "--lr_scheduler_type reduce_lr_on_plateau --eval_strategy epoch",
            "--lr_scheduler_type reduce_lr_on_plateau is Trainer's",
        ),
        ("--resume_from_checkpoint nowhere", "no such checkpoint: nowhere"),
        ("--dataloader_drop_last true --max_train_samples 7", "the 7 rows of train are no whole batch of 8"),
        ("--dataloader_drop_last true --max_eval_samples 5", "the 5 rows of validation are no whole batch of 8"),
    ],
)
def test_refused_before_anything_is_written(extra, message, dropping, tmp_path):
    with pytest.raises(RecipeError, match=message):
        run("no_trainer", dropping, tmp_path / "run", extra)
    assert not (tmp_path / "run").exists()


def test_one_process_is_for_one_gpu(monkeypatch, dropping, tmp_path):
    from hf_winopt import WinOptTrainingArguments

    monkeypatch.setattr(WinOptTrainingArguments, "n_gpu", 2)
    with pytest.raises(RecipeError, match=r"one process would share 2 GPUs: .*ddp.yaml --num_processes 2"):
        run("no_trainer", dropping, tmp_path / "run")


def test_an_error_is_a_line(dropping, tmp_path):
    argv = arguments(dropping, tmp_path / "run", "--max_length 129")
    path = ROOT / "recipes" / "glue" / "run_glue_no_trainer.py"
    done = subprocess.run([sys.executable, str(path), *argv], capture_output=True, text=True, timeout=240)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert (
        done.stderr.splitlines()[-1]
        == "run_glue_no_trainer.py: --max_length 129: this model reads from 1 to 128 tokens"
    )
