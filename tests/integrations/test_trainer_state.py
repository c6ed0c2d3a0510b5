"""Trainer and what is kept: levels of state by a typed argument, and a best model that is trained on."""

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, set_seed

from hf_winopt import WinOptTrainingArguments
from hf_winopt.rules import STATES


def wide_bert():
    """Its embeddings and attention are large enough for a level of state."""
    set_seed(0)
    config = BertConfig(
        vocab_size=100, hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=128,
        max_position_embeddings=16,
    )  # fmt: skip
    return BertForSequenceClassification(config)


def inner(trainer):
    return trainer.optimizer.optimizer


@pytest.mark.parametrize("level", STATES)
def test_a_level_by_a_typed_argument_trains_and_resumes_to_the_same_bits(level, make_trainer, tmp_path):
    options = {
        "arguments": WinOptTrainingArguments,
        "optim": "adamw_win",
        "optim_state": level,
        "learning_rate": 1e-3,
        "max_steps": 6,
    }
    without_stop = make_trainer(wide_bert(), **options)
    without_stop.train()
    make_trainer(wide_bert(), **options, save_strategy="steps", save_steps=3).train()
    resumed = make_trainer(wide_bert(), **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    kept = set()
    for p, q in zip(without_stop.model.parameters(), resumed.model.parameters()):
        assert torch.equal(p, q)
        mine, theirs = inner(without_stop).state[p], inner(resumed).state[q]
        assert mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)
        kept |= {mine["exp_avg_sq"].dtype}
    codes = {"float32": set(), "compact": {torch.float16}, "8bit": {torch.uint8}}
    assert kept == {torch.float32} | codes[level]


@pytest.mark.parametrize("name", ["adamw_win", "adamw_win2"])
def test_the_best_model_is_trained_on_and_not_the_last(name, make_trainer, tmp_path):
    """Trainer loads the best weights into the model at the end; with a second copy of them the next step undid that."""
    trainer = make_trainer(
        wide_bert(), optim=name, learning_rate=1e-2, max_steps=12, eval_strategy="steps", eval_steps=1,
        save_strategy="steps", save_steps=1, load_best_model_at_end=True, metric_for_best_model="eval_loss",
        greater_is_better=True,
    )  # fmt: skip
    trainer.train()
    last = BertForSequenceClassification.from_pretrained(tmp_path / "checkpoint-12").parameters()
    best = [p.detach().clone() for p in trainer.model.parameters()]
    apart = max((p - q).abs().max() for p, q in zip(best, last))
    for p in trainer.model.parameters():
        p.grad = torch.ones_like(p)
    inner(trainer).step()
    moved = max((p - before).abs().max() for p, before in zip(trainer.model.parameters(), best))
    assert 0 < moved < 0.03 < 0.06 < apart
