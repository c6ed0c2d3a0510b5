"""What only a fresh process can show: what an import brings along, and who can read what we have written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import hf_winopt


def python(code, *arguments):
    """What the code prints, as JSON, in a process of its own."""
    path = os.pathsep.join([str(Path(hf_winopt.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_import_brings_nothing_heavy():
    code = "import json, sys, hf_winopt; print(json.dumps(sorted(sys.modules)))"
    loaded = {name.split(".")[0] for name in python(code)}
    assert "hf_winopt" in loaded
    heavy = {"torch", "transformers", "accelerate", "datasets", "lightning", "triton", "matplotlib", "scipy"}
    assert loaded.isdisjoint(heavy)


def test_every_public_name_is_found_at_its_first_use():
    for name in hf_winopt.__all__:
        assert getattr(hf_winopt, name) is vars(hf_winopt)[name]
    with pytest.raises(AttributeError, match="module 'hf_winopt' has no attribute 'AdamX'"):
        _ = hf_winopt.AdamX


def test_training_arguments_do_not_bring_the_trainer():
    code = """
import json, sys, hf_winopt
from transformers import TrainingArguments
args = TrainingArguments("out", optim="adamw_win")
print(json.dumps([args.optim.value, "transformers.trainer" in sys.modules]))
"""
    assert python(code) == ["adamw_win", False]


def test_importing_us_last_is_no_different():
    code = """
import json, sys
from transformers import HfArgumentParser, Trainer, TrainingArguments
args = TrainingArguments("out", use_cpu=True)
class TheirTrainer(Trainer): pass
import hf_winopt
from hf_winopt.integrations.transformers import install
install()
args.set_optimizer("adan_win2", learning_rate=0.5)
kind, options = TheirTrainer.get_optimizer_cls_and_kwargs(args)
from transformers import trainer
callbacks = [callback.__name__ for callback in trainer.DEFAULT_CALLBACKS]
print(json.dumps([kind.__name__, options["lr"], options["acceleration"], callbacks.count("AGRStopCallback")]))
"""
    assert python(code) == ["Adan", 0.5, "win2", 1]


def test_training_args_bin_opens_without_us(make_trainer, tmp_path):
    make_trainer(optim="lamb_win2", optim_args="reckless_steps=2:8").save_model()
    code = """
import json, sys, torch
sys.modules["hf_winopt"] = None  # an import would now fail
args = torch.load(sys.argv[1], weights_only=False)
types = [type(args).__name__, type(args.optim).__name__]
print(json.dumps([*types, args.optim, args.to_dict()["optim"], args.optim_args]))
"""
    expected = ["TrainingArguments", "str", "lamb_win2", "lamb_win2", "reckless_steps=2:8"]
    assert python(code, tmp_path / "training_args.bin") == expected
