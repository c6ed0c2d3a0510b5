"""The model card says what `results.json` holds, and nothing else."""

from __future__ import annotations

import copy
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard, metadata_load

from hf_winopt import cli
from hf_winopt.integrations.hub import WinOptModelCard
from hf_winopt.public import ROOT
from recipes.cards import TRAININGS

RESULTS: dict[str, Any] = {
    "task": "GLUE CoLA",
    "pipeline": "text-classification",
    "dataset": {
        "name": "nyu-mll/glue",
        "config": "cola",
        "source": "hub",
        "title": "GLUE CoLA",
        "language": "en",
        "description": "Sentences.",
    },
    "model": {"name": "google-bert/bert-base-uncased", "source": "hub", "class": "Bert", "parameters": 110_000_000},
    "optimizer": {"name": "adan_win", "class": "Adan", "options": {"betas": [0.98, 0.92, 0.99], "weight_decay": 0.01}},
    "training": {"seed": 1, "learning_rate": 4e-5, "note": "a|b", "hflip": False, "lr_drops": None},
    "headline": "matthews_correlation",
    "metrics": {"validation": {"matthews_correlation": 0.61234, "f1": None, "loss": 0.4}},
    "history": {"train": [{"step": 1, "loss": 0.5}], "evaluation": [{"step": 1, "matthews_correlation": 0.6}]},
    "wall_seconds": 61.4,
    "seconds_per_step": 0.0123,
    "state_bytes": 2_200_000_000,
    "comparison": None,
    "resumed_at_step": 0,
    "versions": {"python": "3.11", "torch": "2.13"},
    "machine": {"cpus": 2, "accelerator": None},
    "command": "python recipes/glue/run_glue.py --seed 1",
}


def card(drawn: bool = True, **changes: Any) -> WinOptModelCard:
    return WinOptModelCard.from_results({**copy.deepcopy(RESULTS), **changes}, drawn=drawn)


def test_what_the_hub_indexes(tmp_path):
    card().save(tmp_path / "README.md")
    metadata = metadata_load(tmp_path / "README.md")
    assert metadata["base_model"] == "google-bert/bert-base-uncased" and metadata["datasets"] == ["nyu-mll/glue"]
    assert metadata["tags"] == ["hf-winopt", "adan_win"] and metadata["library_name"] == "transformers"
    assert metadata["metrics"] == ["matthews_correlation", "f1"]
    assert "license" not in metadata
    (result,) = ModelCard.load(tmp_path / "README.md").data.eval_results[:1]
    assert (result.dataset_config, result.dataset_split, result.metric_value) == ("cola", "validation", 0.61234)
    values = [entry["value"] for entry in metadata["model-index"][0]["results"][0]["metrics"]]
    assert values == [0.61234, 0.4]  # what was not measured is absent


def test_what_people_read():
    text = str(card())
    for part in (
        "| validation | Matthews correlation | 0.6123 |",
        "| validation | F1 | undefined |",
        "`adan_win` is the class `Adan` of hf-winopt, a Python package of optimizers for PyTorch and Trainer, with",
        "The paper: Adan: Adaptive Nesterov Momentum",
        "in its parts 2 (adan), 3 (win, proximal).",
        "2,200.0 MB of state for 110,000,000 parameters",
        "| betas | `[0.98, 0.92, 0.99]` |",
        "a\\|b",
        "- Time: 1 min 1 s in all, 12.3 ms a step (median)\n",
        "- Machine: cpus 2\n",
        "```sh\npython recipes/glue/run_glue.py --seed 1\n```\n",
    ):
        assert part in text
    for absent in ("compared", "How to use it", "None", "accelerator", "hflip"):
        assert absent not in text


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("float32", "for 110,000,000 parameters.\n"),
        ("compact", "for 110,000,000 parameters, that of large matrices in 16 and 8 bits (`state=compact`).\n"),
        ("8bit", "for 110,000,000 parameters, that of large matrices in 8 bits (`state=8bit`).\n"),
    ],
)
def test_how_the_state_was_kept(state, said):
    optimizer = {**RESULTS["optimizer"], "options": {"state": state}}
    assert f"2,200.0 MB of state {said}" in str(card(optimizer=optimizer))


def test_what_only_some_runs_have():
    text = str(card(comparison="It is a tie.", usage="print(1)", license="apache-2.0", resumed_at_step=7))
    assert (
        "## How the optimizer compared, in other runs\n\nIt is a tie.\n" in text and "```python\nprint(1)\n```" in text
    )
    assert yaml.safe_load(text.split("---")[1])["license"] == "apache-2.0"
    assert "1 min 1 s in all from step 7 on" in text
    assert "the time of a step was not measured" in str(card(seconds_per_step=None))


def test_scores_that_are_no_numbers_of_python(tmp_path):
    """As a script may return them; and of a training that has diverged."""
    scores = {"accuracy": np.float32(0.5), "f1": np.float64("nan"), "loss": float("inf")}
    card(metrics={"validation": scores}).save(tmp_path / "README.md")
    (accuracy,) = ModelCard.load(tmp_path / "README.md").data.eval_results
    assert (accuracy.metric_type, accuracy.metric_value) == ("accuracy", 0.5)
    text = (tmp_path / "README.md").read_text()
    assert "**The training diverged**" in text and ".nan" not in text and ".inf" not in text
    assert "diverged" not in str(card())


def test_an_optimizer_that_is_not_ours():
    text = str(card(optimizer={"name": "adamw_torch_fused", "class": "AdamW", "options": {}}, state_bytes=None))
    assert "`adamw_torch_fused` is the class `AdamW` with these options" in text
    assert "math.md" not in text and "of state" not in text and "hf-winopt, a" not in text


def test_data_that_is_not_on_the_hub_has_a_name_of_its_own():
    data = {**RESULTS["dataset"], "source": "embedded", "name": "embedded", "title": "scikit-learn's digits"}
    (result,) = card(dataset=data).data.eval_results[:1]
    assert (result.dataset_type, result.dataset_name) == ("scikit-learn-s-digits", "scikit-learn's digits")
    assert (result.metric_type, result.metric_name) == ("matthews_correlation", "Matthews correlation")


def test_no_two_blank_lines_and_tables_stand_alone():
    for text in (str(card()), str(card(comparison="It is a tie.", usage="print(1)"))):
        assert "\n\n\n" not in text
        lines = text.split("\n")
        for before, line in itertools.pairwise(lines):
            if line.startswith("|") and not before.startswith("|"):
                assert before == ""
            if before.startswith("|") and not line.startswith("|"):
                assert line == ""


def test_results_that_are_none(tmp_path, capsys):
    without = {key: value for key, value in RESULTS.items() if key != "metrics"}
    with pytest.raises(ValueError, match="the results have no 'metrics'"):
        WinOptModelCard.from_results(without)
    for content, message in ((None, "no training has left any there"), ("{", "not valid JSON"), ("[]", "an object")):
        if content is not None:
            (tmp_path / "results.json").write_text(content)
        assert cli.main(["card", str(tmp_path)]) == 1
        assert message in capsys.readouterr().err
        assert not (tmp_path / "README.md").exists()


def test_the_command(tmp_path, capsys):
    (tmp_path / "results.json").write_text(json.dumps(RESULTS))
    assert cli.main(["card", str(tmp_path), "--print"]) == 0
    printed = capsys.readouterr().out
    assert not (tmp_path / "README.md").exists()
    assert cli.main(["card", str(tmp_path)]) == 0
    assert (tmp_path / "README.md").read_text() == printed == str(card(drawn=False))
    (tmp_path / "curves.png").write_bytes(b"a picture")
    assert cli.main(["card", str(tmp_path)]) == 0
    assert (tmp_path / "README.md").read_text() == str(card(drawn=True))


def test_the_command_quotes_a_comparison(tmp_path, capsys):
    """What several seeds have shown, with their spread, beside what one run has."""
    compared = ROOT / "benchmarks" / "results" / "compare_cifar10"
    for optimizer, status in (("adamw_win", 0), ("adan_win", 1)):
        folder = tmp_path / optimizer
        folder.mkdir()
        results = {**RESULTS, "optimizer": {"name": optimizer, "class": "AdamW", "options": {}}}
        (folder / "results.json").write_text(json.dumps(results))
        assert cli.main(["card", str(folder), "--comparison", str(compared)]) == status
        assert (folder / "README.md").exists() != bool(status)
    assert "and not of adan_win" in capsys.readouterr().err
    text = (tmp_path / "adamw_win" / "README.md").read_text()
    assert "Not of this model: other trainings" in text and "mean ± sd" in text
    assert cli.main(["card", str(tmp_path / "adamw_win"), "--print"]) == 0
    assert capsys.readouterr().out.endswith(text)
    assert cli.main(["card", str(tmp_path / "adamw_win"), "--comparison", str(tmp_path)]) == 1
    assert "no comparison can be read there" in capsys.readouterr().err


def test_the_template_can_be_read_where_the_cards_are():
    assert (ROOT / "model_cards" / "template.md").read_text() == Path(WinOptModelCard.default_template_path).read_text()


@pytest.mark.parametrize("folder", sorted((ROOT / "model_cards").glob("*/")), ids=lambda folder: folder.name)
def test_the_cards_of_the_recipes_are_of_their_results(folder):
    """As `python -m recipes.cards` left them; nothing was written by hand, and nothing in them is private."""
    text = (folder / "README.md").read_text()
    assert text == str(WinOptModelCard.of_run(folder))
    assert (folder / "curves.png").stat().st_size > 10_000
    assert not [word for word in ("/home", "/root", "/tmp", "/work", "PATH_TO") if word in text]


def test_there_is_a_card_for_each_recipe():
    assert {folder.name for folder in (ROOT / "model_cards").glob("*/")} == set(TRAININGS)
