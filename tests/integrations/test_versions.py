"""What a user does, on the versions that are installed: `make matrix` runs this file on several of them.

Nothing here looks at a version. What is kept elsewhere in more detail is here once, from the outside, for every name.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh

from hf_winopt import OPTIMIZERS, create_optimizer
from tests.distributed.problems import Pair
from tests.distributed.processes import together
from tests.integrations import test_accelerate as loop
from tests.integrations.test_accelerate import _fresh_accelerate  # noqa: F401  a fixture
from tests.integrations.test_trainer import inner, loss_of, parameters_of, rate
from tests.integrations.trainer_cards import card_of, is_ours, results_of
from tests.oracle import SPECS
from tests.problems import follows_oracle
from tests.test_cli import TRAIN, TRAIN_LINE, python, run

pytestmark = pytest.mark.matrix
SMALL, LARGE = ((3, 4), (5,), (2, 3, 2)), ((90, 50),)
ENGINES = [
    *((name, backend, SMALL) for backend in ("eager", "triton") for name in OPTIMIZERS),
    *((name, "compile", LARGE) for name in ("lamb_win2", "adan_agr")),
]


@pytest.mark.parametrize(("name", "backend", "shapes"), ENGINES, ids=lambda value: value if str(value) == value else "")
def test_a_step_follows_the_formula(name, backend, shapes):
    if backend == "triton":
        pytest.importorskip("triton")
    spec = replace(SPECS[name], weight_decay=0.1)
    follows_oracle(
        lambda params: create_optimizer(name, params, weight_decay=0.1, backend=backend),
        spec, torch.float64, steps=6, shapes=shapes,
    )  # fmt: skip


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_trainer_learns_and_goes_on_to_the_same_bits(name, make_trainer, tiny_bert, tmp_path):
    options = {
        "optim": name, "learning_rate": rate(name), "weight_decay": 0.01, "warmup_steps": 1, "max_steps": 12,
        "lr_scheduler_type": "cosine", "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2,
        "save_strategy": "steps", "save_steps": 8,
    }  # fmt: skip
    without_stop, resumed = (make_trainer(tiny_bert(dropout=0.1), **options) for _ in range(2))
    start = loss_of(without_stop)
    without_stop.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-8"))
    assert type(inner(resumed)) is OPTIMIZERS[name].cls and resumed.state.global_step == 12
    ends = parameters_of(without_stop.model), parameters_of(resumed.model)
    torch.testing.assert_close(*ends, rtol=0, atol=0)
    assert loss_of(resumed) < start


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_saved_state_dict_goes_on_to_the_same_bits(name, tmp_path):
    def stepped(params, optimizer, draw):
        for _ in range(3):
            for p in params:
                p.grad = torch.randn(p.shape, generator=draw)
            optimizer.step()

    one = [torch.nn.Parameter(torch.randn(4, 3)), torch.nn.Parameter(torch.randn(5))]
    optimizer = create_optimizer(name, one, lr=1e-2, weight_decay=0.1)
    stepped(one, optimizer, torch.Generator().manual_seed(1))
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    other = [torch.nn.Parameter(p.detach().clone()) for p in one]
    loaded = create_optimizer(name, other)
    loaded.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    for params, each in ((one, optimizer), (other, loaded)):
        stepped(params, each, torch.Generator().manual_seed(2))
    assert all(torch.equal(p, q) for p, q in zip(one, other))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_accelerate_accumulates_and_goes_on_to_the_same_bits(name, tmp_path):
    whole = loop.train(*loop.prepared(name, 16, 1))
    parts = loop.prepared(name, 4, 4)
    torch.testing.assert_close(loop.train(*parts), whole, rtol=1e-3, atol=1e-5)
    parts[0].save_state(str(tmp_path))
    expected = loop.train(*parts)
    other = loop.prepared(name, 4, 4)
    other[0].load_state(str(tmp_path))
    assert all(torch.equal(a, b) for a, b in zip(loop.train(*other), expected))


def sharded() -> None:
    for name in ("adamw_win", "adan_agr", "lamb_win2", "adal"):
        pair = Pair(name, init_device_mesh("cpu", (2,)))
        pair.steps(3)
        pair.check(1e-5)


def test_shards_are_stepped_as_whole_parameters(tmp_path):
    together(2, sharded, tmp_path)


def test_trainers_card_is_ours(trained):
    trainer = trained()
    trainer.create_model_card()
    assert is_ours(trainer) and "adamw_win" in card_of(trainer)
    assert results_of(trainer)["optimizer"]["name"] == "adamw_win"


def test_the_command_is_installed_and_lists_every_name():
    command = Path(sys.executable).with_name("hf-winopt")
    if not command.exists():
        pytest.skip("a checkout that is not installed")
    done = subprocess.run([command, "list"], capture_output=True, text=True, check=True)
    assert set(OPTIMIZERS) <= {line.split(" ")[0] for line in done.stdout.splitlines()}


def test_a_script_that_knows_nothing_of_us(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(TRAIN)
    line = [script, *TRAIN_LINE.split(), "--output_dir", tmp_path / "out"]
    assert "TRAINED AdamW win2 (3.0, 9.0)" in run(*line).stdout
    launched = python(
        "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", "-m", "hf_winopt", "run", *line
    )
    assert "TRAINED AdamW win2 (3.0, 9.0)" in launched.stdout, launched.stderr
