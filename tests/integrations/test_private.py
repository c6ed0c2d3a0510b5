"""What Trainer pushes beside the model has neither a token nor a folder of this machine in it."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Seq2SeqTrainingArguments, Trainer, TrainerState, TrainingArguments

from hf_winopt import AdamW, WinOptTrainingArguments
from hf_winopt.integrations.private import hide_in_folder, public_state

TOKEN = "hf_secret"


def saved(args: Any) -> bytes:
    file = io.BytesIO()
    torch.save(args, file)  # as Trainer makes training_args.bin
    return file.getvalue()


@pytest.mark.parametrize("kind", [TrainingArguments, Seq2SeqTrainingArguments, WinOptTrainingArguments])
def test_saved_arguments_have_no_token_and_no_folder_of_this_machine(kind, tmp_path):
    args = kind(str(tmp_path / "out"), hub_token=TOKEN, optim="adamw_win", report_to=[])
    content = saved(args)
    assert TOKEN.encode() not in content and str(tmp_path).encode() not in content
    opened = torch.load(io.BytesIO(content), weights_only=False)
    assert type(opened) is kind and (opened.hub_token, opened.output_dir) == (None, "PATH_TO/out")
    assert (opened.optim, opened.learning_rate) == ("adamw_win", args.learning_rate)
    assert (args.hub_token, args.output_dir) == (TOKEN, str(tmp_path / "out"))


def test_what_is_deeper_in_the_arguments(tmp_path):
    args = WinOptTrainingArguments(str(tmp_path / "out"), optim="adamw_win", report_to=[])
    args.lr_scheduler_kwargs = {"file": str(tmp_path / "x"), "inner": [{"hub_token": TOKEN}, "../alice/y"], "n": 1}
    opened = torch.load(io.BytesIO(saved(args)), weights_only=False)
    assert opened.lr_scheduler_kwargs == {"file": "PATH_TO/x", "inner": [{"hub_token": None}, "PATH_TO/y"], "n": 1}


def test_an_optimizer_that_was_given_itself_hides_too(tmp_path, tiny_bert, examples):
    """Its arguments say nothing of it."""
    model = tiny_bert()
    for optimizer, private in ((AdamW(model.parameters()), False), (torch.optim.AdamW(model.parameters()), True)):
        args = TrainingArguments(str(tmp_path / "out"), max_steps=1, use_cpu=True, report_to=[], hub_token=TOKEN)
        trainer = Trainer(model, args, train_dataset=examples, optimizers=(optimizer, None))
        trainer.train()
        trainer.save_model()
        assert (TOKEN.encode() in (tmp_path / "out" / "training_args.bin").read_bytes()) == private


def test_a_state_that_is_saved_by_itself(make_trainer, tmp_path):
    often = {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 1, "save_steps": 1}
    for optim in ("adamw_win", "adamw_torch"):
        trainer = make_trainer(optim=optim, max_steps=2, load_best_model_at_end=True, **often)
        trainer.train()
        trainer.save_state()
        assert (str(tmp_path) in (tmp_path / "trainer_state.json").read_text()) == (optim == "adamw_torch")


def test_arguments_with_an_optimizer_of_transformers_are_left_alone(tmp_path):
    assert TOKEN.encode() in saved(TrainingArguments(str(tmp_path), hub_token=TOKEN, report_to=[]))


def test_copies_and_other_processes_have_all_of_it(tmp_path):
    args = WinOptTrainingArguments(str(tmp_path / "out"), hub_token=TOKEN, optim="adamw_win", report_to=[])
    sent = pickle.loads(multiprocessing.reduction.ForkingPickler.dumps(args))
    for same in (sent, copy.copy(args), copy.deepcopy(args), dataclasses.replace(args)):
        assert same is not args and type(same) is WinOptTrainingArguments
        assert (same.hub_token, same.output_dir) == (TOKEN, str(tmp_path / "out"))


def state(folder: Path, step: int, best: Path | str | None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "trainer_state.json"
    TrainerState(global_step=step, best_model_checkpoint=None if best is None else str(best)).save_to_json(str(file))
    return file


def best_of(file: Path) -> str | None:
    return TrainerState.load_from_json(str(file)).best_model_checkpoint


def test_the_best_checkpoint_by_its_name_and_found_again(tmp_path):
    out = tmp_path / "out"
    file = state(out / "checkpoint-2", 2, None)
    file = state(out / "checkpoint-4", 4, out / "checkpoint-2")
    hide_in_folder(file.parent)
    assert str(tmp_path) not in file.read_text()
    assert json.loads(file.read_text())["best_model_checkpoint"] == "checkpoint-2"
    assert best_of(file) == str(out / "checkpoint-2")
    moved = out.rename(tmp_path / "elsewhere")
    assert best_of(moved / "checkpoint-4" / "trainer_state.json") == str(moved / "checkpoint-2")


def test_a_whole_path_means_what_it_says(tmp_path):
    """As without this package: of another optimizer's training nothing is found that Trainer would not find."""
    (tmp_path / "checkpoint-2").mkdir()
    file = state(tmp_path / "checkpoint-4", 4, "/elsewhere/checkpoint-2")
    assert best_of(file) == "/elsewhere/checkpoint-2"


def test_the_best_that_was_pushed_under_another_name(tmp_path):
    file = state(tmp_path / "last-checkpoint", 4, "checkpoint-4")
    assert best_of(file) == str(file.parent)
    file = state(tmp_path / "last-checkpoint", 4, "checkpoint-2")
    assert best_of(file) == "checkpoint-2"  # not here: Trainer says so itself


def test_a_state_that_has_nothing_to_hide_stays_as_it_is(tmp_path):
    for best in (None, "runs/x/checkpoint-2"):
        file = state(tmp_path / "checkpoint-4", 4, best)
        content = file.read_bytes()
        hide_in_folder(file.parent)
        assert file.read_bytes() == content and public_state(content.decode()) == content.decode()
    hide_in_folder(tmp_path / "empty")
