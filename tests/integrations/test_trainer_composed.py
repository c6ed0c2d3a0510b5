"""Trainer trains BERT and GPT-2 with every name around others' optimizers, and with Muon: stops, resumes, says so."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, set_seed

from hf_winopt import COMPOSED, WinOptTrainingArguments
from hf_winopt.optim import Parts, Win
from tests.beside import of_this_process, passes_with_them
from tests.integrations.test_trainer import inner, parameters_of

RATES = {"lion_win": 5e-4, "adamw_8bit_win": 2e-3, "rmsprop_win": 5e-4}

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*Enum.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
each = pytest.mark.parametrize("name", of_this_process(COMPOSED))
on_both = pytest.mark.parametrize("kind", ["bert", "gpt2"])


@pytest.fixture
def make(make_trainer, tiny_bert, examples):
    """A Trainer of a tiny classifier or language model."""

    def made(kind, **options) -> Trainer:
        if kind == "bert":
            return make_trainer(tiny_bert(dropout=0.1), **options)
        set_seed(0)
        config = GPT2Config(
            n_embd=32, n_layer=2, n_head=2, n_positions=16, vocab_size=100, bos_token_id=0, eos_token_id=0
        )
        trainer = make_trainer(GPT2LMHeadModel(config), **options)
        texts = [{"input_ids": one["input_ids"], "labels": one["input_ids"]} for one in examples]
        trainer.train_dataset = trainer.eval_dataset = texts
        return trainer

    return made


@each
@on_both
def test_learns_stops_and_resumes_to_the_same_bits(kind, name, make, tmp_path, capsys):
    options = {
        "optim": name,
        "learning_rate": RATES.get(name, 2e-3),
        "weight_decay": 0.01,
        "max_steps": 6,
        "save_steps": 3,
        "save_strategy": "steps",
        "lr_scheduler_type": "linear",
        "warmup_steps": 1,
    }
    trainer = make(kind, **options)
    start = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert isinstance(inner(trainer), Parts if name.startswith("muon") else Win)
    assert trainer.evaluate()["eval_loss"] < start
    resumed = make(kind, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert resumed.state.global_step == 6
    first, second = parameters_of(trainer.model), parameters_of(resumed.model)
    assert [key for key in first if not torch.equal(first[key], second[key])] == []
    assert capsys.readouterr().out.count("muon: ") == (2 if name.startswith("muon") else 0)  # once a Trainer


def test_muon_has_the_groups_that_trainer_makes(make):
    trainer = make("bert", optim="muon", learning_rate=1e-3, weight_decay=0.1)
    groups = trainer.create_optimizer().param_groups
    assert [(group["part"], group["weight_decay"]) for group in groups] == [
        ("muon", 0.1),
        ("adamw", 0.1),
        ("adamw", 0.0),
    ]
    assert all(p.ndim == 2 for p in groups[0]["params"])
    assert groups[0]["adjust_lr_fn"] == "match_rms_adamw"


def test_options_as_typed_arguments(make):
    trainer = make(
        "bert",
        arguments=WinOptTrainingArguments,
        optim="muon_win",
        momentum=0.8,
        ns_steps=3,
        muon_exclude="pooler",
        muon_include="classifier.weight",
        reckless_steps=[3.0, 9.0],
        optim_state="compact",
        adam_beta2=0.95,
    )
    muon, adamw, _ = trainer.create_optimizer().param_groups
    assert (muon["momentum"], muon["ns_steps"], adamw["betas"], adamw["state"]) == (0.8, 3, (0.9, 0.95), "compact")
    assert inner(trainer).parts["muon"].options == {
        "acceleration": "win",
        "reckless_steps": (3, 9),
        "state": "compact",
        "backend": "auto",
    }
    theirs = {id(p) for p in muon["params"]}
    model = trainer.model
    assert id(model.classifier.weight) in theirs and id(model.bert.pooler.dense.weight) not in theirs


@pytest.mark.parametrize(
    ("optim_args", "message"),
    [
        ("reckless_stps=2:8", "muon_win has no option reckless_stps; did you mean reckless_steps"),
        ("momentum=x", "momentum of muon_win"),
        ("acceleration=win2", "acceleration cannot be both"),
    ],
)
def test_bad_options_are_refused_before_training(make, optim_args, message):
    with pytest.raises(ValueError, match=message):
        make("bert", optim="muon_win", optim_args=optim_args).create_optimizer()


def test_lora_by_muon(make_trainer, tiny_bert):
    adapted = get_peft_model(tiny_bert(), LoraConfig(r=4, target_modules=["query", "value"], task_type="SEQ_CLS"))
    trainer = make_trainer(adapted, optim="muon", learning_rate=1e-2, max_steps=12)
    start = trainer.evaluate()["eval_loss"]
    trainer.train()
    muon, *others = trainer.optimizer.param_groups
    assert len(muon["params"]) == 8  # two layers, query and value, A and B
    assert sum(len(group["params"]) for group in others) == 2  # the classifier
    assert trainer.evaluate()["eval_loss"] < start


@pytest.mark.parametrize(("name", "said"), [("muon_win", "Win(Muon) and AdamW"), ("rmsprop_win", "Win(RMSprop)")])
def test_the_card_says_what_it_was(name, said, make, tmp_path):
    trainer = make("bert", optim=name, max_steps=2)
    trainer.train()
    trainer.save_model()
    trainer.create_model_card()
    optimizer = json.loads((tmp_path / "results.json").read_text())["optimizer"]
    assert (optimizer["name"], optimizer["class"]) == (name, said)
    card = (tmp_path / "README.md").read_text()
    assert f"`{name}` is the class `{said}` of hf-winopt" in card
    assert COMPOSED[name].paper in card


def test_a_win_of_ones_own_has_its_class_for_a_name(make, tmp_path):
    trainer = make("bert", max_steps=2)
    trainer.optimizer = Win(torch.optim.RAdam(trainer.model.parameters()))
    trainer.train()
    trainer.create_model_card()
    assert "`Win(RAdam)` is the class `Win(RAdam)`" in (tmp_path / "README.md").read_text()


def test_a_model_without_hidden_matrices(make_trainer):
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.classifier = nn.Linear(8, 2)

        def forward(self, input_ids, labels):
            logits = self.classifier(input_ids.float())
            return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    with pytest.raises(ValueError, match="muon must have matrices of hidden layers"):
        make_trainer(Bare(), optim="muon").create_optimizer()


def test_those_installed_beside():
    assert passes_with_them(__file__) == 4
