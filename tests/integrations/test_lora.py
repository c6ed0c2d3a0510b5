"""Adapters of PEFT, trained by Trainer: they alone are stepped, hold state and are decayed."""

from __future__ import annotations

import pytest
import torch

from tests.integrations.test_trainer import inner, loss_of, parameters_of, rate

peft = pytest.importorskip("peft")
NAMES = ("adamw_win", "lamb_win", "adan_win_agr")


@pytest.fixture
def adapted(tiny_bert):
    """Makes the same model every time: low ranks added to two matrices of each layer, and a classifier."""

    def make():
        config = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query", "value"], r=4, lora_dropout=0.1)
        return peft.get_peft_model(tiny_bert(), config)

    return make


def trained_names(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("name", NAMES)
def test_only_the_adapters_are_stepped(name, make_trainer, adapted):
    trainer = make_trainer(adapted(), optim=name, learning_rate=5 * rate(name), weight_decay=0.01, max_steps=12)
    before, start = parameters_of(trainer.model), loss_of(trainer)
    trainer.train()
    after = parameters_of(trainer.model)
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert moved == trained_names(trainer.model) < set(before)
    of_state = {id(parameter) for parameter in inner(trainer).state}
    assert of_state == {id(parameter) for parameter in trainer.model.parameters() if parameter.requires_grad}
    assert loss_of(trainer) < start


def test_matrices_are_decayed_and_biases_not(make_trainer, adapted):
    trainer = make_trainer(adapted(), optim="adamw_win", weight_decay=0.02)
    decayed, others = trainer.create_optimizer().param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.02, 0)
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    with_decay, without = ({names[id(p)] for p in group["params"]} for group in (decayed, others))
    assert with_decay | without == trained_names(trainer.model)
    assert {name for name in with_decay | without if name.endswith("bias")} == without
    assert sum("lora_" in name for name in with_decay) == 8  # two matrices for two in each of two layers


def test_a_saved_adapter_is_the_trained_one(make_trainer, adapted, tiny_bert, tmp_path):
    trainer = make_trainer(adapted(), optim="adamw_win", learning_rate=1e-2, max_steps=4)
    fresh = loss_of(trainer)
    trainer.train()
    trainer.save_model()
    loaded = peft.PeftModel.from_pretrained(tiny_bert(), str(tmp_path))
    trained = loss_of(trainer)
    assert loss_of(make_trainer(loaded)) == pytest.approx(trained, rel=1e-6) and trained != fresh


def test_stop_and_resume_gives_the_same_bits(make_trainer, adapted, tmp_path):
    options = {"optim": "adan_win2", "learning_rate": 1e-2, "max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    without_stop, resumed = (make_trainer(adapted(), **options) for _ in range(2))
    without_stop.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    ends = parameters_of(without_stop.model), parameters_of(resumed.model)
    torch.testing.assert_close(*ends, rtol=0, atol=0)
    states = (inner(trainer).state_dict()["state"] for trainer in (without_stop, resumed))
    torch.testing.assert_close(*states, rtol=0, atol=0)
