"""Inside a real Trainer: what is kept, and that what has diverged is stopped."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from transformers import TrainerCallback

from hf_winopt.compare import outcome
from hf_winopt.compare.recorder import Recorder, state_bytes
from tests.compare.conftest import compare, summary

SCRIPT = """
import torch
from transformers import HfArgumentParser, Trainer, TrainingArguments

class Line(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.line = torch.nn.Linear(4, 1)

    def forward(self, x, labels):
        out = self.line(x).squeeze(-1)
        return {"loss": ((out - labels) ** 2).mean(), "out": out}

(args,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses()
torch.manual_seed(args.seed)
data = [{"x": torch.randn(4), "labels": torch.randn(())} for _ in range(64)]
Trainer(model=Line(), args=args, train_dataset=data, eval_dataset=data[:16]).train()
"""


@pytest.fixture
def recorded(make_trainer, tmp_path):
    """Trains with a recorder; the trainer and the outcome that is read afterwards."""

    def train(*callbacks, **options):
        folder = tmp_path / "run"
        trainer = make_trainer(output_dir=str(folder / "output"), **options)
        for callback in (Recorder(folder), *callbacks):
            trainer.add_callback(callback)
        trainer.train()
        trainer.evaluate()
        return trainer, outcome.read(folder, returncode=0), json.loads((folder / "progress.json").read_text())

    return train


def test_what_is_kept(recorded):
    trainer, found, progress = recorded(max_steps=6, optim="adamw_win", learning_rate=1e-3)
    elements = sum(parameter.numel() for parameter in trainer.model.parameters())
    assert found.state == "finished" and found.steps == 6 and progress == {"step": 6, "steps": 6}
    assert found.state_bytes == pytest.approx(12 * elements, rel=1e-3)  # m, v, x in float32, and the step counts
    assert found.seconds_per_step > 0 and [step for step, _ in found.losses] == [1, 2, 3, 4, 5, 6]
    # save_strategy is "no", and this evaluation came after the training: Trainer itself leaves nothing of it.
    assert found.evaluations[-1]["step"] == 6 and found.value("eval_loss") > 0


def test_state_that_comes_late_is_counted_and_hidden_state_is_not():
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(5))])
    assert state_bytes(optimizer) == 0 and state_bytes(object()) is None
    recorder, state = Recorder(None), SimpleNamespace(is_world_process_zero=False, global_step=1, max_steps=9)
    for _ in range(2):
        recorder.on_step_begin()
        recorder.on_step_end(None, state, None, optimizer=optimizer)  # the first as GradScaler skips it
        optimizer.param_groups[0]["params"][0].grad = torch.ones(5)
        optimizer.step()
    assert recorder.state_bytes >= 2 * 5 * 4


def test_a_rising_loss_is_stopped(recorded):
    trainer, found, _ = recorded(max_steps=40, optim="sgd", learning_rate=100.0, max_grad_norm=0.0)
    assert trainer.state.global_step < 40
    assert found.state == "diverged" and ("rose from" in found.reason or "is nan" in found.reason)


def test_weights_that_are_not_finite_are_noticed_where_the_logged_loss_hides_them(recorded):
    class Break(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **_):
            if state.global_step == 3:
                with torch.no_grad():
                    model.classifier.weight.fill_(torch.nan)

    trainer, found, _ = recorded(Break(), max_steps=40, optim="adamw_torch")
    assert found.state == "diverged" and found.reason == "weights are no longer finite"
    assert trainer.state.global_step <= 5


def test_what_is_no_divergence(tmp_path):
    def first_reason(*logs):
        recorder = Recorder(tmp_path)
        return next(filter(None, (recorder._divergence(entry, torch.nn.Linear(2, 2)) for entry in logs)), "")

    def losses(*values):
        return [{"loss": value} for value in values]

    assert first_reason({"loss": 1.0, "grad_norm": float("inf")}) == ""  # fp16 skips such a step
    assert first_reason(*losses(0, 0, 0, 0, 0, 3e-4, 3e-4, 3e-4)) == ""  # a loss that begins at zero
    assert first_reason(*losses(1, 2, 1, 1, 1, 30, 1, 30, 1)) == ""  # single spikes
    assert first_reason(*losses(2, 1, 30, 30, 30)) == "the training loss rose from 2 to 30"


def test_the_training_counts_and_not_an_evaluation_by_another_trainer(recorded, make_trainer, tmp_path):
    trainer, found, _ = recorded(max_steps=4, optim="adamw_torch")
    other = make_trainer(output_dir=str(tmp_path / "run" / "output"))
    (recorder,) = (each for each in trainer.callback_handler.callbacks if isinstance(each, Recorder))
    other.add_callback(recorder)
    other.evaluate()
    assert outcome.read(tmp_path / "run", returncode=0) == found


def test_the_best_model_is_not_the_last(recorded):
    options = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 2, "save_steps": 2}
    with pytest.raises(ValueError, match="leave out load_best_model_at_end"):
        recorded(max_steps=4, optim="adamw_torch", save_strategy="steps", **options)


def test_a_diverged_run_of_a_real_trainer(toy):
    (toy / "train.py").write_text(SCRIPT)
    words = "--max_steps 500 --eval_strategy steps --eval_steps 100 --logging_steps 1 --report_to none --use_cpu"
    line = ["train.py", *words.split(), "--max_grad_norm", "0", "--optims", "sgd", "--lrs", "1e30", "--seeds", "1"]
    assert compare(*line, "--out", "out") == 1  # nothing came of it
    result = summary(toy / "out")
    assert result["runs"] == {"finished": 0, "diverged": 1, "failed": 0, "missing": 0, "tried_again": 0}
    entry = json.loads((toy / "out" / "runs.jsonl").read_text())
    assert entry["state"] == "diverged" and entry["steps"] < 20
    assert "sgd, lr 1e+30, seed 1 (final): diverged" in (toy / "out" / "report.md").read_text()
