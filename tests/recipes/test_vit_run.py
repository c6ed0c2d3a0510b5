"""Both training scripts from end to end: report, the loops' agreement, going on, several processes, what is refused."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification, pipeline

pytest.importorskip("kornia")

from hf_winopt.public import ROOT
from recipes.common import RecipeError
from recipes.vit import run_vit, run_vit_no_trainer, sources

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
    extra = "--crop_scale 0.3 1 --hflip --rand_augment 7 --random_erasing 0.5 --use_cpu true --max_train_samples 96"
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
@pytest.mark.parametrize("step", [4, 6], ids=["within an epoch", "between two"])
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


# ---------------------------------------------------------------------------------------------------- models

TINY_MODELS = {
    "vit": {"patch_size": 4, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2},
    "deit": {"patch_size": 4, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2},
    "swin": {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 2, "patch_size": 2},
    "convnext": {"hidden_sizes": [8, 8, 8, 16], "depths": [1, 1, 1, 1]},
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 2], "layer_type": "basic"},
    "poolformer": {"hidden_sizes": [8, 8, 8, 16], "depths": [1, 1, 1, 1]},
}


@pytest.mark.parametrize("kind", TINY_MODELS)
def test_any_kind_of_model_from_scratch_with_stochastic_depth(kind, tmp_path):
    overrides = json.dumps(TINY_MODELS[kind], separators=(",", ":"))
    model = f"--model_type {kind} --config_overrides {overrides} --image_size 32 --drop_path 0.5"
    extra = f"{QUIET} {model} --max_train_samples 90 --max_eval_samples 20 --max_steps 2"
    results = run_vit.main(["--output_dir", str(tmp_path), *extra.split()])
    assert math.isfinite(results["metrics"]["test"]["loss"]) and kind in results["model"]["name"]


def test_a_trained_model_is_given_a_new_head(finished, tmp_path):
    _, folder = finished
    rows = sources.load(sources.EMBEDDED, None).splits["train"].filter(lambda label: label < 3, input_columns="label")
    rows = rows.cast_column("label", type(rows.features["label"])(names=["zero", "one", "two"]))
    (tmp_path / "data").mkdir()
    rows.to_parquet(tmp_path / "data" / "train-0.parquet")
    where = f"--output_dir {tmp_path / 'out'} --model_name_or_path {folder} --dataset_name {tmp_path / 'data'}"
    results = run_vit.main(f"{where} --max_steps 2 {QUIET}".split())
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "out")
    assert model.config.id2label == {0: "zero", 1: "one", 2: "two"}
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    body = next(name for name in before if "query" in name or "q_proj" in name)
    assert torch.allclose(before[body], after[body], atol=1e-3)
    assert set(results["metrics"]) == {"validation"} and results["model"]["source"] == "local"


# --------------------------------------------------------------------------------------------- what is refused


@BOTH
@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("--image_size 7", "--image_size 7 is not a multiple of the patch size 2: give 6 or 8"),
        ("--model_type vitt", "--model_type vitt: did you mean vit"),
        ("--model_type vit --config_overrides {}x", "not valid JSON"),
        ('--config_overrides {"hidden_sise":8}', "vit has no hidden_sise: did you mean hidden_size"),
        ("--model_type convnext --drop_path 1", "--drop_path 1.0: must be from 0 to below 1"),
        ("--crop_scale 0.5", "--crop_scale 0.5: must be two shares"),
        ("--crop_scale 0.9 0.1", "--crop_scale 0.9 0.1: must be two shares"),
        ("--rand_augment 11", "--rand_augment 11.0: must be from 0 to 10"),
        ("--mixup -1", "--mixup -1.0: must be at least 0"),
        ("--loss mse", "--loss mse: must be ce or bce"),
        ("--repeats 0", "--repeats 0: must be at least 1"),
        ("--train_val_split 0", "--train_val_split 0: must be above 0"),
        ("--image_column_name photo", "no column 'photo'"),
        ("--crop_scales 1 1", "did you mean --crop_scale"),
        ("--ema_decay 0.9 --load_best_model_at_end true --save_strategy steps --save_steps 3", "not with --ema_decay"),
    ],
)
def test_what_is_refused_before_any_training(script, extra, message, tmp_path):
    with pytest.raises(RecipeError, match=message):
        run(script, tmp_path / "out", extra)
    assert not (tmp_path / "out").exists()


def test_a_model_of_another_size_is_refused(finished, tmp_path):
    _, folder = finished
    arguments = ["--output_dir", str(tmp_path / "out"), "--model_name_or_path", str(folder), "--image_size", "16"]
    with pytest.raises(RecipeError, match=r"--image_size 16 does not fit .*: .*8"):
        run_vit.main(arguments)


def test_stochastic_depth_of_an_unknown_model_is_refused(tmp_path):
    arguments = ["--model_type", "mobilenet_v2", "--image_size", "32", "--drop_path", "0.1", "--max_steps", "1"]
    with pytest.raises(RecipeError, match=r"--drop_path 0.1: MobileNetV2.* give --drop_path 0"):
        run_vit.main(["--output_dir", str(tmp_path), *arguments])


def test_errors_have_no_traceback(tmp_path):
    done = subprocess.run(
        [sys.executable, run_vit_no_trainer.SCRIPT, "--image_size", "7", "--output_dir", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("run_vit_no_trainer.py: --image_size 7")
