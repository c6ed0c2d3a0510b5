"""The disk is full in the middle of a checkpoint: the run says so and ends, and is gone on from to the same bits."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from transformers import TrainingArguments
from transformers.trainer_callback import TrainerState

from recipes.common import RecipeError, checkpoint_to_resume
from tests.recipes.test_glue_no_trainer import SCRIPTS, arguments, assert_same_bits, run, save_model

TRAIN = "--optim adamw_win --max_steps 6 --save_strategy steps --save_steps 2"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "dropping", 0.1)


@pytest.fixture(scope="module")
def whole(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of an undisturbed training by a script."""
    folders = {script: tmp_path_factory.mktemp(script) for script in SCRIPTS}
    for script, folder in folders.items():
        run(script, model, folder, TRAIN)
    return folders.__getitem__


@contextmanager
def a_full_disk(limit: int) -> Iterator[None]:
    """Once a checkpoint has been saved, no file can be longer than so many bytes, whoever writes it."""
    theirs, limits = TrainerState.save_to_json, resource.getrlimit(resource.RLIMIT_FSIZE)

    def save_to_json(self: TrainerState, path: str) -> None:
        theirs(self, path)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainerState, "save_to_json", save_to_json)
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def length_of_weights(folder: Path) -> int:
    return (folder / "model.safetensors").stat().st_size


@pytest.mark.parametrize("share", [0.5, 1.5], ids=["in the weights", "in the state"])
@pytest.mark.parametrize("script", SCRIPTS)
def test_the_disk_is_full(script, share, model, whole, tmp_path):
    """Win's state is three times as long as the weights."""
    limit = int(share * length_of_weights(whole(script)))
    with (
        a_full_disk(limit),
        pytest.raises(RecipeError, match=r"checkpoint-4 could not be saved: .* go on with"),
    ):
        run(script, model, tmp_path, TRAIN)
    assert not (tmp_path / "results.json").exists()
    results = SCRIPTS[script].main(arguments(model, tmp_path, f"{TRAIN} --resume_from_checkpoint true"))
    assert results["resumed_at_step"] == 2
    assert_same_bits(whole(script), tmp_path)


@pytest.mark.parametrize(("script", "left"), [("trainer", 4), ("no_trainer", 6)])
def test_a_checkpoint_is_saved_over_a_whole_one(script, left, model, whole, tmp_path):
    """Trainer writes into the same folder, whose old state must not vouch for half of the new weights."""
    shutil.copytree(whole(script), tmp_path, dirs_exist_ok=True)
    (tmp_path / "results.json").unlink()
    limit = length_of_weights(tmp_path) // 2
    with a_full_disk(limit), pytest.raises(RecipeError, match="checkpoint-6 could not be saved"):
        run(script, model, tmp_path, f"{TRAIN} --resume_from_checkpoint {tmp_path}/checkpoint-2")
    args = TrainingArguments(str(tmp_path), max_steps=8, resume_from_checkpoint="true", report_to=[], use_cpu=True)
    assert checkpoint_to_resume(args) == str(tmp_path / f"checkpoint-{left}")
