"""The settings files: those of the papers, and those that are learned here; and the launcher's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

pytest.importorskip("kornia")

from accelerate.commands.config.config_args import load_config_from_file
from transformers import AutoConfig, AutoModelForImageClassification

from hf_winopt.public import ROOT
from recipes.vit import run_vit
from recipes.vit.arguments import Arguments, parse

CONFIGS = ROOT / "recipes" / "vit" / "configs"
LAUNCHERS = ROOT / "recipes" / "accelerate"
IMAGENET, GPUS = 1_281_167, 8


def parsed(*files: str) -> Arguments:
    return parse(run_vit.SCRIPT, [*(str(CONFIGS / f"{name}.yaml") for name in files), "--bf16", "false"])


# names of the files: lr, weight decay, warm-up epochs, mixup, drop path, RandAugment, erasing, smoothing, loss, clip,
# batch, least rate, repeats
PAPERS = {
    ("vit_s",): (2e-3, 0.05, 60, 0.8, 0.1, 7, 0, 0.1, "bce", 0, 1024, 1e-6, 1),
    ("vit_s", "vit_s_adamw_win2"): (2e-3, 0.05, 5, 0.8, 0.1, 7, 0, 0.1, "bce", 0, 1024, None, 1),
    ("vit_s", "vit_s_adam_win"): (1e-3, 1e-5, 30, 0.8, 0.1, 7, 0, 0, "ce", 0, 1024, None, 1),
    ("vit_s", "vit_s_lamb_win"): (5e-3, 0.02, 60, 0.8, 0.1, 7, 0, 0.1, "bce", 0, 1024, 5e-5, 1),
    ("vit_s", "vit_s_sgd_win"): (3.0, 1e-4, 5, 0.8, 0.1, 7, 0, 0.1, "ce", 0, 1024, None, 1),
    ("vit_b",): (1e-3, 0.05, 5, 0.8, 0.1, 7, 0.25, 0.1, "ce", 5, 1024, None, 3),
    ("vit_s", "vit_s_adan"): (1.5e-2, 0.02, 60, 0.8, 0.1, 7, 0.25, 0.1, "bce", 0, 2048, 1e-5, 1),
    ("vit_b", "vit_b_adan"): (1.5e-2, 0.02, 60, 0.8, 0.2, 9, 0.25, 0.1, "ce", 5, 2048, None, 3),
}


@pytest.mark.parametrize("files", PAPERS, ids="+".join)
def test_the_papers_settings_on_imagenet(files):
    model_args, image_args, augment_args, args = parsed(*files)
    batch = args.per_device_train_batch_size * GPUS
    kwargs = args.lr_scheduler_kwargs or {}
    found = (
        args.learning_rate,
        args.weight_decay,
        args.get_warmup_steps(10**9) / -(-IMAGENET // batch),
        augment_args.mixup,
        model_args.drop_path,
        augment_args.rand_augment,
        augment_args.random_erasing,
        args.label_smoothing_factor,
        augment_args.loss,
        args.max_grad_norm,
        batch,
        kwargs.get("min_lr"),
        augment_args.repeats,
    )
    assert found == PAPERS[files]
    assert args.lr_scheduler_type == ("cosine_with_min_lr" if kwargs else "cosine")
    assert (augment_args.crop_scale, augment_args.cutmix, augment_args.hflip) == ([0.08, 1.0], 1.0, True)
    assert (image_args.image_size, args.num_train_epochs) == (224, 300)
    assert parsed(*files, "150_epochs")[3].num_train_epochs == 150


@pytest.mark.parametrize(("name", "parameters"), [("vit_s", 22.05e6), ("vit_b", 86.57e6), ("cifar10_vit_tiny", 5.36e6)])
def test_sizes_of_the_models(name, parameters):
    model_args, image_args, _, _ = parsed(name)
    overrides = json.loads(model_args.config_overrides)
    size, classes = (224, 1000) if image_args.image_size else (32, 10)
    config = AutoConfig.for_model("vit", image_size=size, num_labels=classes, **overrides)
    with torch.device("meta"):
        model = AutoModelForImageClassification.from_config(config)
    assert model.num_parameters() == pytest.approx(parameters, rel=1e-3)


def test_agr_stops_after_250_of_300_epochs():
    _, _, _, args = parsed("tinyvit_agr")
    assert args.optim == "adamw_agr" and args.num_train_epochs == 300
    assert round(args.agr_stop_ratio * 300) == 250


def test_adal_s_rate_drops_at_epochs_50_and_100():
    model_args, _, _, args = parsed("cifar100_resnet34_adal")
    assert model_args.lr_drops == [50, 100]
    assert (args.num_train_epochs, args.per_device_train_batch_size, args.weight_decay) == (150, 128, 5e-4)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_settings_file_is_understood(path):
    """Alone, or after the file that it says it comes after."""
    first = path.read_text().split("\n", 1)[0]
    before = [first.split()[2].rstrip(":,").removesuffix(".yaml")] if first.startswith("# After") else []
    model_args, image_args, _, args = parsed(*before, path.stem)
    assert model_args.model_type or image_args.dataset_name == "embedded"
    assert args.output_dir.startswith("runs/")
    if before and path.stem != "150_epochs":
        assert args.output_dir == f"runs/{path.stem}"


def test_settings_in_yaml_are_the_arguments(tmp_path):
    (tmp_path / "my.yaml").write_text(yaml.safe_dump({"crop_scale": [0.2, 0.9], "config_overrides": {"depths": [1]}}))
    model_args, _, augment_args, _ = parse(run_vit.SCRIPT, [str(tmp_path / "my.yaml")])
    assert augment_args.crop_scale == [0.2, 0.9] and json.loads(model_args.config_overrides) == {"depths": [1]}


def test_the_digits_are_learned(tmp_path):
    """The settings of the README's first command, fewer steps."""
    extra = f"--optim adamw_win --max_steps 300 --eval_steps 300 --disable_tqdm true --output_dir {tmp_path}"
    results = run_vit.main([str(CONFIGS / "digits.yaml"), *extra.split()])
    assert results["metrics"]["test"]["accuracy"] > 0.7


@pytest.mark.parametrize("path", sorted(LAUNCHERS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_launcher_understands_its_settings(path: Path):
    config = load_config_from_file(str(path))
    kinds = {"fsdp2": "FSDP", "deepspeed_zero2": "DEEPSPEED", "cpu": "NO", "gpu": "NO"}
    assert config.distributed_type == kinds.get(path.stem, "MULTI_GPU")
    if path.stem == "fsdp2":
        assert config.fsdp_config["fsdp_version"] == 2
    if path.stem == "deepspeed_zero2":
        assert config.deepspeed_config["zero_stage"] == 2
