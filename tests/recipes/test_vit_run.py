"""Both training scripts from end to end: report, the loops' agreement, going on, several processes, what is refused."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import transformers
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import pipeline

pytest.importorskip("kornia")

from hf_winopt.public import ROOT
from recipes.common import RecipeError
from recipes.vit import run_vit, run_vit_no_trainer, sources
from recipes.vit.images import Images

SCRIPTS = {"trainer": run_vit, "no_trainer": run_vit_no_trainer}
QUIET = "--report_to none --disable_tqdm true --dataloader_pin_memory false --save_strategy no --logging_steps 1"
SMALL = (
    '--config_overrides {"hidden_size":16,"num_hidden_layers":2,"num_attention_heads":2,"intermediate_size":16} '
    "--max_train_samples 90 --max_eval_samples 40 --optim adamw_win --learning_rate 1e-2 --weight_decay 0.1"
)
STEPS = "--max_steps 6 --eval_strategy steps --eval_steps 3 --per_device_train_batch_size 16"
AUGMENTED = (
    "--crop_scale 0.3 1 --hflip --color_jitter 0.4 --rand_augment 7 --random_erasing 0.25 --mixup 0.8 --cutmix 1 "
    "--label_smoothing_factor 0.1 --loss bce --drop_path 0.3 --ema_decay 0.7 --repeats 2"
)
TRAINER_4 = transformers.__version__.startswith("4.")  # it logs losses to four digits
BOTH = pytest.mark.parametrize("script", SCRIPTS)


def run(script: str, folder: Path, extra: str = "") -> dict:
    return SCRIPTS[script].main(["--output_dir", str(folder), *f"{SMALL} {QUIET} {STEPS} {extra}".split()])


def losses(results: dict) -> list[float]:
    return [entry["loss"] for entry in results["history"]["train"]]


def assert_same_bits(one: Path, other: Path) -> None:
    first, second = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


# --------------------------------------------------------------------------------------------------- a run


@pytest.fixture(scope="module", params=SCRIPTS)
def finished(request, tmp_path_factory) -> tuple[dict, Path]:
    folder = tmp_path_factory.mktemp("finished")
    return run(request.param, folder), folder


def test_results(finished):
    results, folder = finished
    assert json.loads((folder / "results.json").read_text()) == results
    assert set(results["metrics"]) == {"validation", "test"}
    for scores in results["metrics"].values():
        assert 0 <= scores["accuracy"] <= 1 and math.isfinite(scores["loss"])
    assert len(results["history"]["train"]) == 6
    validation = [entry for entry in results["history"]["evaluation"] if entry["split"] == "validation"]
    assert [entry["step"] for entry in validation] == [3, 6]
    assert validation[-1]["accuracy"] == results["metrics"]["validation"]["accuracy"]
    assert 0 < results["waiting_for_data"] < 1
    assert results["optimizer"]["name"] == "adamw_win" and results["optimizer"]["options"]["weight_decay"] == 0.1
    assert (folder / "curves.png").stat().st_size > 10_000


def test_time_spent_waiting_is_printed(tmp_path, capsys):
    run("trainer", tmp_path)
    assert "% of the time of the training steps" in capsys.readouterr().out


def test_card(finished):
    _, folder = finished
    card = ModelCard.load(folder / "README.md")
    assert card.data.pipeline_tag == "image-classification"
    assert "scikit-learn's digits" in card.text and str(folder) not in card.text


def test_what_is_saved_classifies_anywhere(finished):
    """The saved processor and model, on the images as files, score what the script reports."""
    results, folder = finished
    classify = pipeline("image-classification", model=str(folder), device="cpu")
    source = sources.load(sources.EMBEDDED, None)
    images = [source.open("test", row) for row in range(40)]
    predicted = [scores[0]["label"] for scores in classify(images)]
    right = [label == str(truth) for label, truth in zip(predicted, source.splits["test"]["label"][:40])]
    assert sum(right) / 40 == pytest.approx(results["metrics"]["test"]["accuracy"])


def test_loss_is_the_mean_over_all_images_however_they_are_batched(tmp_path):
    whole = run("trainer", tmp_path / "a", "--per_device_eval_batch_size 40")["metrics"]["test"]
    for script in SCRIPTS:
        parts = run(script, tmp_path / script, "--per_device_eval_batch_size 7")["metrics"]["test"]
        assert parts == pytest.approx(whole, rel=1e-5)


# ------------------------------------------------------------------------------------------- the loops agree


@pytest.mark.parametrize("extra", ["", AUGMENTED, f"{AUGMENTED} --gradient_accumulation_steps 4"])
def test_both_loops_agree_over_20_steps(extra, tmp_path):
    """90 images in batches of 16: with 4 accumulated, an epoch's last step has fewer."""
    first, second = (run(script, tmp_path / script, f"--max_steps 20 {extra}") for script in SCRIPTS)
    assert len(losses(first)) == 20
    assert losses(first) == pytest.approx(losses(second), rel=1e-6, abs=5.1e-5 if TRAINER_4 else None)
    assert first["metrics"]["test"] == pytest.approx(second["metrics"]["test"], rel=1e-6)
    one, other = (load_file(tmp_path / script / "model.safetensors") for script in SCRIPTS)
    assert all(torch.allclose(one[name], other[name], rtol=1e-5, atol=1e-6) for name in one)
    rates = [[entry["learning_rate"] for entry in results["history"]["train"]] for results in (first, second)]
    assert rates[0] == pytest.approx(rates[1])


def test_a_rate_that_drops(tmp_path):
    """90 images in batches of 16: epochs of 6 steps."""
    extra = "--lr_drops 1 1.5 --lr_scheduler_type constant --max_steps 12 --warmup_steps 2"
    for script in SCRIPTS:
        rates = [entry["learning_rate"] for entry in run(script, tmp_path / script, extra)["history"]["train"]]
        assert rates == pytest.approx([0.0, 5e-3, *[1e-2] * 4, *[1e-3] * 3, *[1e-4] * 3], abs=1e-9)


@BOTH
def test_accumulated_parts_are_the_batch(script, tmp_path):
    augmented = "--crop_scale 0.3 1 --hflip --rand_augment 7 --random_erasing 0.5"
    whole = run(script, tmp_path / "whole", augmented)
    parts = run(
        script, tmp_path / "parts", f"{augmented} --per_device_train_batch_size 8 --gradient_accumulation_steps 2"
    )
    assert losses(whole)[:5] == pytest.approx(losses(parts)[:5], rel=1e-5)


@BOTH
def test_two_processes_are_one_with_the_whole_batch(script, tmp_path):
    """With augmentation: an image's random numbers are its own, whichever process reads it."""
    augmented = "--crop_scale 0.3 1 --hflip --rand_augment 7 --random_erasing 0.5 --repeats 2 --ema_decay 0.7"
    extra = f"{augmented} --use_cpu true --max_train_samples 96"
    whole = run(script, tmp_path / "one", extra)
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "recipes/accelerate/two_cpus.yaml"]
    arguments = f"{SMALL} {QUIET} {STEPS} {extra} --per_device_train_batch_size 8".split()
    done = subprocess.run(
        [*command, SCRIPTS[script].SCRIPT, "--output_dir", str(tmp_path / "two"), *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    parts = json.loads((tmp_path / "two" / "results.json").read_text())
    assert losses(parts) == pytest.approx(losses(whole), abs=1e-5)
    for split in ("validation", "test"):
        assert parts["metrics"][split] == pytest.approx(whole["metrics"][split], abs=1e-5)


# -------------------------------------------------------------------------------------------------- going on


@BOTH
@pytest.mark.parametrize("step", [4, 6, 8], ids=["in the first epoch", "between two", "in the second"])
def test_interrupted_and_resumed_the_same_bits(script, step, tmp_path):
    """An epoch has 6 steps; dropped blocks, the average and all random numbers go on as if nothing had been."""
    extra = f"{AUGMENTED} --max_steps 9 --save_strategy steps --save_steps {step}"
    whole = run(script, tmp_path / "whole", extra)
    checkpoint = tmp_path / "whole" / f"checkpoint-{step}"
    resumed = run(script, tmp_path / "part", f"{extra} --resume_from_checkpoint {checkpoint}")
    assert resumed["resumed_at_step"] == step
    assert losses(resumed)[-3:] == losses(whole)[-3:]
    assert resumed["metrics"] == whole["metrics"]
    assert_same_bits(tmp_path / "whole", tmp_path / "part")


@BOTH
def test_a_checkpoint_of_another_script_or_without_an_average_is_refused(script, tmp_path):
    run(script, tmp_path, "--save_strategy steps --save_steps 4")
    checkpoint = tmp_path / "checkpoint-4"
    (other,) = set(SCRIPTS) - {script}
    with pytest.raises(RecipeError, match="go on from it with that"):
        run(other, tmp_path / "other", f"--resume_from_checkpoint {checkpoint}")
    with pytest.raises(RecipeError, match=r"--ema_decay: .* was trained without one"):
        run(script, tmp_path / "average", f"--resume_from_checkpoint {checkpoint} --ema_decay 0.9")


@BOTH
def test_agr_stops_at_a_share_of_the_steps(script, tmp_path):
    results = run(script, tmp_path, "--optim adamw_agr --agr_stop_ratio 0.5")
    assert results["optimizer"]["options"]["agr_steps"] == 3


@pytest.mark.parametrize("accumulated", [1, 4])
def test_waiting_is_not_the_step_s(accumulated, tmp_path, monkeypatch):
    """A loader whose clock jumps a minute for each batch: nearly all the time is spent waiting, and steps are short."""
    offset, read, clock = [0.0], Images.__getitems__, time.perf_counter

    def slowly(self, numbers):
        offset[0] += 60
        return read(self, numbers)

    monkeypatch.setattr(Images, "__getitems__", slowly)
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + offset[0])
    for script in SCRIPTS:
        extra = f"--gradient_accumulation_steps {accumulated} --eval_strategy no"
        results = run(script, tmp_path / f"{script}", extra)
        assert results["waiting_for_data"] > 0.8 and results["seconds_per_step"] < 30


@BOTH
def test_the_average_is_what_is_evaluated_and_saved(script, tmp_path):
    """With a decay of almost 1 it stays where the first step brought the weights."""
    one = run(script, tmp_path / "one", "--max_steps 1 --lr_scheduler_type constant")
    many = run(script, tmp_path / "many", "--ema_decay 0.999999 --lr_scheduler_type constant")
    assert many["metrics"]["test"] == pytest.approx(one["metrics"]["test"], rel=1e-3)
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "many"))
    assert all(torch.allclose(first[name], second[name], atol=1e-5) for name in first)
    checkpointed = run(script, tmp_path / "saved", "--ema_decay 0.5 --save_strategy steps --save_steps 6")
    trained = load_file(tmp_path / "saved" / "checkpoint-6" / "model.safetensors")
    averaged = load_file(tmp_path / "saved" / "model.safetensors")
    assert any(not torch.equal(trained[name], averaged[name]) for name in trained)
    assert checkpointed["training"]["ema_decay"] == 0.5
