"""The models that can be trained, what is done to them, and what is refused before any training."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from safetensors.torch import load_file
from torch import nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
)

pytest.importorskip("kornia")

from hf_winopt.public import ROOT
from recipes.common import RecipeError
from recipes.vit import run_vit, run_vit_no_trainer, sources, stochastic_depth
from recipes.vit.averaging import Averaging
from recipes.vit.images import Images
from tests.recipes.test_vit_data import save, table
from tests.recipes.test_vit_run import BOTH, QUIET, SCRIPTS, TRAINER_4, run

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


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    run("trainer", folder)
    return folder


def test_a_trained_model_is_given_a_new_head(trained, tmp_path):
    folder = trained
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


@BOTH
def test_a_model_with_two_heads(script, trained, tmp_path):
    """As the distilled ones of DeiT: what they give in evaluations is the mean of both."""
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    config = DeiTConfig(image_size=8, patch_size=4, architectures=["DeiTForImageClassificationWithTeacher"], **sizes)
    DeiTForImageClassificationWithTeacher(config).save_pretrained(tmp_path / "deit")
    AutoImageProcessor.from_pretrained(trained).save_pretrained(tmp_path / "deit")
    extra = f"--model_name_or_path {tmp_path / 'deit'} --max_train_samples 64 --max_eval_samples 20 --max_steps 2"
    results = SCRIPTS[script].main([*f"--output_dir {tmp_path / 'out'} {extra} {QUIET}".split()])
    assert math.isfinite(results["metrics"]["test"]["loss"])
    assert "WithTeacher" in results["model"]["class"]


def test_weights_stored_in_half_precision_are_trained_in_full(trained, tmp_path):
    model = AutoModelForImageClassification.from_pretrained(trained)
    model.bfloat16().save_pretrained(tmp_path / "half")
    AutoImageProcessor.from_pretrained(trained).save_pretrained(tmp_path / "half")
    extra = f"--model_name_or_path {tmp_path / 'half'} --max_train_samples 64 --max_steps 1 {QUIET}"
    run_vit.main(["--output_dir", str(tmp_path / "out"), *extra.split()])
    assert {weight.dtype for weight in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.float32}


@pytest.mark.parametrize("crop_pct", [1.0, 0.8])
@pytest.mark.parametrize("trained_before", [False, True])
def test_the_saved_processor_prepares_images_as_evaluations_do(crop_pct, trained_before, trained, tmp_path):
    """On images that are no squares, and larger than the model's."""
    folder = save(tmp_path, train=table([_wide(number) for number in range(30)], [n % 3 for n in range(30)]))
    model = f"--model_name_or_path {trained}" if trained_before else "--model_type vit --image_size 8"
    overrides = [] if trained_before else ["--config_overrides", json.dumps(TINY_MODELS["vit"])]
    extra = (
        f"--output_dir {tmp_path / 'out'} --dataset_name {folder} --crop_pct {crop_pct} --max_steps 1 {model} {QUIET}"
    )
    run_vit_no_trainer.main([*extra.split(), *overrides])
    processor = AutoImageProcessor.from_pretrained(tmp_path / "out")
    source = sources.load(folder, None)
    photo = source.open("validation", 0)
    expected = Images(source, "validation", 8, crop_pct=crop_pct).__getitems__([0])["pixel_values"][0]
    found = processor(photo, return_tensors="pt")["pixel_values"][0]
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (processor.image_mean, processor.image_std))
    assert (found * std + mean - expected / 255).abs().max() < 0.06  # resized in one step here, in two there


def _wide(number: int) -> bytes:
    """Smooth, 40 x 24 pixels, the left end black."""
    x, y = np.meshgrid(np.linspace(0, 1, 40), np.linspace(0, 1, 24))
    pixels = np.stack([x, y, (x + y) / 2], axis=2) * (200 + number)
    file = io.BytesIO()
    Pillow.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


# -------------------------------------------------------------------------------------------- stochastic depth


@pytest.mark.parametrize("kind", ["vit", "deit", "resnet"])
def test_branches_are_left_out_more_often_the_deeper_they_are(kind):
    """3 blocks at 0.6: 0, 0.3 and 0.6; what is kept is enlarged, so that the mean stays."""
    depth = {"depths": [1, 2]} if kind == "resnet" else {"num_hidden_layers": 3}
    config = AutoConfig.for_model(kind, **TINY_MODELS[kind] | depth, image_size=8)
    config.architectures = []
    model = AutoModelForImageClassification.from_config(config)
    stochastic_depth.add(model, 0.6)
    hooks = [hook for module in model.modules() for hook in module._forward_hooks.values()]
    assert len(hooks) == (4 if TRAINER_4 and kind != "resnet" else 2)  # in transformers 5 both branches share one
    torch.manual_seed(0)
    for number, hook in enumerate(hooks):
        probability = 0.3 if number < len(hooks) / 2 else 0.6
        module = nn.Identity().train()
        output = hook(module, None, torch.ones(4000, 3, 2))
        kept = output[:, 0, 0] != 0
        assert abs(kept.float().mean() - (1 - probability)) < 0.03
        assert torch.allclose(output[kept], torch.tensor(1 / (1 - probability)))
        assert torch.equal(hook(module.eval(), None, torch.ones(5, 2)), torch.ones(5, 2))


def test_the_average_of_weights():
    torch.manual_seed(0)
    model, decay = nn.Linear(3, 2), 0.9
    averaging = Averaging(model, decay)
    expected = None
    for _ in range(5):
        with torch.no_grad():
            model.weight.add_(torch.randn(2, 3))
        averaging.update()
        weight = model.weight.double()
        expected = weight if expected is None else decay * expected + (1 - decay) * weight
    own = model.weight.clone()
    with averaging.applied():
        assert torch.allclose(model.weight.double(), expected, atol=1e-6)
    assert torch.equal(model.weight, own)


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
        ("--lr_drops 0 --lr_scheduler_type constant", "--lr_drops 0.0: must be epochs after the first"),
        ("--lr_drops 5", "--lr_drops is a schedule of its own"),
        ("--dataloader_drop_last true", "--dataloader_drop_last would leave images out"),
        ("--prediction_loss_only true", "--prediction_loss_only does nothing"),
        ("--remove_unused_columns true", "not with batches like these"),
        ('--config_overrides {"hidden_size":"a"}', "cannot load the model 'vit'"),
        ('--config_overrides {"patch_size":0}', "patch_size 0 must be at least 1"),
        ("--ema_decay 0.9 --load_best_model_at_end true --save_strategy steps --save_steps 3", "not with --ema_decay"),
    ],
)
def test_what_is_refused_before_any_training(script, extra, message, tmp_path):
    with pytest.raises(RecipeError, match=message):
        run(script, tmp_path / "out", extra)
    assert not (tmp_path / "out").exists()


def test_a_model_of_another_size_is_refused(trained, tmp_path):
    arguments = ["--output_dir", str(tmp_path / "out"), "--model_name_or_path", str(trained), "--image_size", "16"]
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
