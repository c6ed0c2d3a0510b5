"""Inside a real Trainer: what is kept, and that what has diverged is stopped."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import TrainerCallback

from hf_winopt.compare import outcome
from hf_winopt.compare.recorder import Recorder
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
        trainer.eval_dataset = trainer.train_dataset
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


def test_gradients_that_overflow_are_no_divergence(recorded, monkeypatch):
    recorder = Recorder(None)
    model = torch.nn.Linear(2, 2)
    assert recorder._divergence({"loss": 1.0, "grad_norm": float("inf")}, model) == ""  # fp16 skips such a step
    assert recorder._divergence({"loss": 11.0}, model).startswith("the training loss rose from 1 to 11")


def test_a_diverged_run_of_a_real_trainer(toy):
    (toy / "train.py").write_text(SCRIPT)
    words = "--max_steps 500 --eval_strategy steps --eval_steps 100 --logging_steps 1 --report_to none --use_cpu"
    line = ["train.py", *words.split(), "--max_grad_norm", "0", "--optims", "sgd", "--lrs", "1e30", "--seeds", "1"]
    assert compare(*line, "--out", "out") == 0
    result = summary(toy / "out")
    assert result["runs"] == {"finished": 0, "diverged": 1, "failed": 0, "missing": 0, "tried_again": 0}
    entry = json.loads((toy / "out" / "runs.jsonl").read_text())
    assert entry["state"] == "diverged" and entry["steps"] < 20
    assert "sgd, lr 1e+30, seed 1 (final): diverged" in (toy / "out" / "report.md").read_text()
