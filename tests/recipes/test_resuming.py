"""Which checkpoint a killed run goes on from."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import TrainerState, TrainingArguments

from recipes.common import RecipeError, checkpoint_to_resume


def arguments(folder: Path, **options: object) -> TrainingArguments:
    given = {"max_steps": 6, "resume_from_checkpoint": "true", "report_to": [], "use_cpu": True, **options}
    return TrainingArguments(str(folder), **given)


def save(folder: Path, *steps: int) -> None:
    for step in steps:
        checkpoint = folder / f"checkpoint-{step}"
        checkpoint.mkdir(parents=True)
        state = TrainerState(global_step=step, max_steps=6, num_train_epochs=3)
        state.save_to_json(str(checkpoint / "trainer_state.json"))


def test_the_last_one(tmp_path):
    save(tmp_path, 2, 4, 10)
    assert checkpoint_to_resume(arguments(tmp_path, max_steps=20)) == str(tmp_path / "checkpoint-10")
    assert checkpoint_to_resume(arguments(tmp_path / "nothing")) is None


@pytest.mark.parametrize("left", [None, "", '{"global_step": 4, "log_hist'])
def test_a_half_written_one_is_never_taken_for_a_whole(left, tmp_path, capsys):
    """Trainer writes the state last; killed before or while it does, it leaves weights, and none of it or half."""
    save(tmp_path, 2, 4)
    state = tmp_path / "checkpoint-4" / "trainer_state.json"
    (state.parent / "model.safetensors").write_bytes(b"half")
    state.unlink() if left is None else state.write_text(left)
    assert checkpoint_to_resume(arguments(tmp_path)) == str(tmp_path / "checkpoint-2")
    assert "checkpoint-4 is not whole" in capsys.readouterr().out


def test_only_a_half_written_one(tmp_path):
    save(tmp_path, 2)
    (tmp_path / "checkpoint-2" / "trainer_state.json").unlink()
    assert checkpoint_to_resume(arguments(tmp_path)) is None


@pytest.mark.parametrize("options", [{}, {"max_steps": -1, "num_train_epochs": 3}])
def test_killed_between_the_last_step_and_the_report(options, tmp_path, capsys):
    save(tmp_path, 2, 4, 6)
    assert checkpoint_to_resume(arguments(tmp_path, **options)) == str(tmp_path / "checkpoint-4")
    assert "nothing was reported" in capsys.readouterr().out
    # more is asked for now: there is something left to do
    more = {"max_steps": 8} if not options else {"max_steps": -1, "num_train_epochs": 4}
    assert checkpoint_to_resume(arguments(tmp_path, **more)) == str(tmp_path / "checkpoint-6")


def test_a_finished_run_is_finished(tmp_path):
    save(tmp_path, 4, 6)
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(RecipeError, match="nothing is left to train"):
        checkpoint_to_resume(arguments(tmp_path))
