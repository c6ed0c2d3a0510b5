"""A sequence classifier that the GLUE recipe pushed, loaded where nothing of this project is."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from recipes.glue import embedded
from recipes.glue.glue_metric import matthews_correlation
from tests.integrations import test_push
from tests.integrations.test_push import TWO, Workplace

ROWS = 64
TRAIN = (
    f"--task_name cola --dataset_name embedded --max_train_samples 256 --max_eval_samples {ROWS} --max_length 32 "
    "--optim adamw_win --learning_rate 1e-4 --seed 3 --max_steps 8 --per_device_train_batch_size 32 --save_steps 4 "
    "--eval_strategy steps --eval_steps 4 --load_best_model_at_end true"
)
LOAD = """
import json, sys
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

sys.modules |= dict.fromkeys(("hf_winopt", "recipes", "tests"))  # not to be had here, even if installed
names, sentences = json.load(sys.stdin)
logits = {}
for name in names:
    model = AutoModelForSequenceClassification.from_pretrained(name)
    tokens = AutoTokenizer.from_pretrained(name)(sentences, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits[name] = model(**tokens).logits.tolist()
print(json.dumps(logits))
"""


@pytest.fixture(scope="module")
def cola(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    with test_push.workplace(tmp_path_factory.mktemp("cola")) as place:
        place.push("recipes.glue.run_glue", TRAIN, TWO)
        yield place


@pytest.fixture(scope="module")
def logits(cola: Workplace) -> dict[str, list[list[float]]]:
    """Of the models on the Hub, and of those in the folders that they were pushed from."""
    places = [f"{place}/{strategy}" for place in ("owner", cola.folder) for strategy in TWO]
    return cola.python(LOAD, [places, embedded.load()["validation"]["sentence"][:ROWS]])


@pytest.mark.parametrize("strategy", TWO)
def test_loads_anywhere_and_scores_the_same(strategy: str, cola: Workplace, logits: dict) -> None:
    test_push.check_files(cola, strategy)
    assert logits[f"owner/{strategy}"] == logits[f"{cola.folder}/{strategy}"]
    outputs = torch.tensor(logits[f"owner/{strategy}"])
    labels = torch.tensor(embedded.load()["validation"]["label"][:ROWS])
    scores = cola.results[strategy]["metrics"]["validation"]
    assert 0 < outputs.argmax(1).sum() < ROWS  # a constant would have a correlation of zero, with anything
    found = matthews_correlation(outputs.argmax(1).numpy(), np.asarray(labels))
    assert found == pytest.approx(scores["matthews_correlation"])
    loss = torch.nn.functional.cross_entropy(outputs, labels)
    assert math.isclose(loss, scores["loss"], rel_tol=1e-5)


@pytest.mark.parametrize("strategy", TWO)
def test_state_only_where_checkpoints_are_pushed(strategy: str, cola: Workplace) -> None:
    test_push.check_states(cola, strategy)


@pytest.mark.parametrize("strategy", TWO)
def test_nothing_private_is_pushed(strategy: str, cola: Workplace) -> None:
    """Nor where the best checkpoint was."""
    test_push.check_nothing_private(cola.server, f"owner/{strategy}")
