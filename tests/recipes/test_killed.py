"""One of two processes is killed while they save, and again: they end with the bits of an undisturbed training."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from tests.recipes.killed import SCRIPTS, Moment, together
from tests.recipes.test_glue_no_trainer import arguments, assert_same_bits, save_model

STEPS = 5
TRAIN = f"--optim adamw_win --max_steps {STEPS} --save_strategy steps --save_steps 1 --use_cpu true"
SAVES = {"trainer": (4, 1), "no_trainer": (4, 1)}
"""Calls of `torch.save` for a checkpoint, by the main process and by the other."""


def moments(script: str) -> list[Moment]:
    """Of either process, in the first two checkpoints that it writes; not the same at every one."""
    draw = random.Random(script)
    return [
        Moment(rank, draw.randint(1, 2 * SAVES[script][rank]), half)
        for rank, half in ((1, False), (0, draw.random() < 0.5), (1, True))
    ]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With dropout: each process has random numbers of its own to go on from."""
    return save_model(tmp_path_factory.mktemp("models") / "dropping", 0.1)


@pytest.mark.parametrize("script", SCRIPTS)
def test_one_of_two_processes_is_killed(script: str, model: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert together(script, arguments(model, whole, TRAIN), tmp_path / "meet") == [0, 0]
    argv = arguments(model, killed, f"{TRAIN} --resume_from_checkpoint true")
    for number, moment in enumerate(moments(script)):
        ended = together(script, argv, tmp_path / f"meet{number}", moment)
        assert ended[moment.rank] == -signal.SIGKILL and 0 not in ended
    assert together(script, argv, tmp_path / "meet_again") == [0, 0]
    assert_same_bits(whole, killed)
