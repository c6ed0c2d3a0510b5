"""A BERT small enough to train in a blink, and a task that it can learn."""

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments, set_seed

import hf_winopt  # noqa: F401  what makes Trainer know the names


@pytest.fixture
def tiny_bert():
    """Makes the same model every time."""

    def make(dropout=0.0):
        set_seed(0)
        config = BertConfig(
            vocab_size=100,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=16,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
        )
        return BertForSequenceClassification(config)

    return make


@pytest.fixture(scope="session")
def examples():
    """Does the sequence start with a token of the upper half?"""
    tokens = torch.randint(5, 100, (32, 8), generator=torch.Generator().manual_seed(1))
    return [{"input_ids": row, "labels": int(row[0] >= 52)} for row in tokens]


@pytest.fixture
def make_trainer(tmp_path, tiny_bert, examples):
    """A Trainer on the two above; the options are fields of `arguments`."""

    def make(model=None, arguments=TrainingArguments, **options):
        settings = {
            "output_dir": str(tmp_path),
            "use_cpu": True,
            "report_to": "none",
            "disable_tqdm": True,
            "save_strategy": "no",
            "per_device_train_batch_size": 8,
            "lr_scheduler_type": "constant",
            "logging_steps": 1,
            "seed": 3,
        }
        args = arguments(**{**settings, **options})
        data = {"train_dataset": examples, "eval_dataset": examples}
        return Trainer(model=tiny_bert() if model is None else model, args=args, **data)

    return make


@pytest.fixture
def trained(make_trainer):
    """A Trainer that has taken four steps; evaluated too, unless it is not to be."""

    def train(evaluated=True, **options):
        trainer = make_trainer(**{"optim": "adamw_win", "max_steps": 4, **options})
        trainer.train()
        if evaluated:
            trainer.evaluate()
        return trainer

    return train
