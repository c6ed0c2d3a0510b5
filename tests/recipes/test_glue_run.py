"""run_glue.py from end to end on few steps: its report, its arguments, and going on where it stopped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from hf_winopt.compare import contenders
from hf_winopt.compare.outcome import Outcome
from hf_winopt.compare.plan import Plan, Run
from hf_winopt.compare.settings import Settings
from hf_winopt.compare.summary import summarize
from hf_winopt.files import write_json
from hf_winopt.integrations.hub import WinOptModelCard
from hf_winopt.public import ROOT
from recipes.common import RecipeError, comparison, expand_arguments, leftovers
from recipes.glue import demo, embedded, run_glue
from recipes.glue.arguments import parse
from recipes.glue.tasks import TASKS, get_task

CONFIGS = sorted((Path(run_glue.__file__).parent / "configs").glob("*.yaml"))
TINY = "--max_steps 6 --max_train_samples 64 --max_eval_samples 32 --max_length 32 --logging_steps 2 --report_to none"
SLOW_PARTS_OFF = "--save_strategy no --eval_strategy steps --eval_steps 3 --dataloader_pin_memory false"


def arguments(folder: Path, extra: str = "", data: str = "embedded", task: str = "cola") -> list[str]:
    where = ["--task_name", task, "--dataset_name", str(data), "--output_dir", str(folder)]
    return [*where, *TINY.split(), *SLOW_PARTS_OFF.split(), *extra.split()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_same_bits(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


# --------------------------------------------------------------------------------------------------- a run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secret-user") / "run"
    run_glue.main(arguments(folder, "--optim adamw_win --optim_args reckless_steps=2:8 --learning_rate 1e-3"))
    return folder


def test_results(finished):
    results = json.loads((finished / "results.json").read_text(), parse_constant=pytest.fail)
    assert results["optimizer"]["name"] == "adamw_win"
    assert results["optimizer"]["options"]["reckless_steps"] == [2.0, 8.0]
    assert results["training"]["steps"] == 6
    assert results["training"]["train_examples"] == 64
    assert results["training"]["seed"] == 42
    assert set(results["metrics"]["validation"]) == {"matthews_correlation", "loss"}
    assert [entry["step"] for entry in results["history"]["train"]] == [2, 4, 6]
    assert [entry["step"] for entry in results["history"]["evaluation"]] == [3, 6]
    assert results["history"]["evaluation"][-1]["loss"] == results["metrics"]["validation"]["loss"]
    assert results["seconds_per_step"] > 0
    assert {"python", "torch", "transformers", "accelerate", "hf_winopt"} <= set(results["versions"])
    assert {"platform", "cpus"} <= set(results["machine"])


def test_report_names_no_place(finished):
    for name in ("results.json", "README.md"):
        text = (finished / name).read_text()
        assert "secret-user" not in text
        assert str(Path.home()) not in text.replace(ROOT.as_posix(), "")
        assert "--output_dir PATH_TO/run" in text


def test_card(finished):
    card = ModelCard.load(finished / "README.md")
    assert card.data.eval_results[0].metric_type == "matthews_correlation"
    assert card.data.eval_results[0].dataset_type == "synthetic-agreement-pairs"
    assert "adamw_win" in card.data.tags
    assert card.data.datasets is None  # nothing on the Hub was used
    assert "The data is synthetic" in card.text
    assert "(curves.png)" in card.text


def test_nothing_half_written(finished):
    assert (finished / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert not [path for path in finished.rglob(".*")]


def test_the_model_loads_again(finished):
    model = AutoModelForSequenceClassification.from_pretrained(finished)
    assert model.config.id2label == {0: "unacceptable", 1: "acceptable"}


def test_same_bits_again(finished, tmp_path):
    run_glue.main(arguments(tmp_path, "--optim adamw_win --optim_args reckless_steps=2:8 --learning_rate 1e-3"))
    assert_same_bits(finished, tmp_path)


# -------------------------------------------------------------------------------------- stopping and going on


def test_stop_and_resume_equals_no_stop(tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    saving = "--optim adamw_win --learning_rate 1e-3 --save_strategy steps --save_steps 3"
    run_glue.main(arguments(whole, saving))
    # As after a crash between steps 3 and 6: the checkpoint is all there is.
    shutil.copytree(whole / "checkpoint-3", stopped / "checkpoint-3")
    results = run_glue.main(arguments(stopped, f"{saving} --resume_from_checkpoint"))
    assert results["resumed_at_step"] == 3
    assert [entry["step"] for entry in results["history"]["train"]] == [2, 4, 6]
    assert_same_bits(whole, stopped)

    with pytest.raises(RecipeError, match="at step 6 of 6: nothing is left"):
        run_glue.main(arguments(stopped, f"{saving} --resume_from_checkpoint true"))


def test_resume_without_a_checkpoint_starts_at_the_beginning(finished, tmp_path, capsys):
    extra = "--optim adamw_win --learning_rate 1e-3 --resume_from_checkpoint"
    run_glue.main(arguments(tmp_path, extra))
    assert "starting at step 0" in capsys.readouterr().out
    assert_same_bits(finished, tmp_path)


# ------------------------------------------------------------------------------------ other tasks and models


@pytest.fixture(scope="module")
def local_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small model whose head is another task's."""
    folder = tmp_path_factory.mktemp("models") / "small"
    tokenizer = embedded.train_tokenizer(embedded.load()["train"]["sentence"][:])
    config = embedded.tiny_bert(tokenizer, num_labels=5)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def local_data(folder: Path, task: str, labels: list[float], *splits: str) -> Path:
    first, second = get_task(task).columns
    rows = {first: ["the keys are old"] * 16, second: ["the key is new"] * 16, "label": labels * 4}
    (folder / task).mkdir()
    for split in ("train", *splits):
        Dataset.from_dict(rows).to_parquet(folder / task / f"{split}-00000-of-00001.parquet")
    return folder


def test_regression(tmp_path, local_model):
    data = local_data(tmp_path, "stsb", [0.0, 2.5, 4.0, 5.0], "validation")
    extra = f"--model_name_or_path {local_model} --optim adan"
    run_glue.main(arguments(tmp_path / "run", extra, data, "stsb"))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert set(results["metrics"]["validation"]) == {"pearson", "spearmanr", "loss"}
    # Equal inputs get equal predictions, whose correlation does not exist.
    assert results["metrics"]["validation"]["pearson"] is None
    assert results["model"]["name"] == "small"
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run")
    assert model.config.problem_type == "regression"
    assert model.config.num_labels == 1


def test_two_validation_sets(tmp_path, local_model):
    data = local_data(tmp_path, "mnli", [0, 1, 2, 2], "validation_matched", "validation_mismatched")
    extra = f"--model_name_or_path {local_model} --optim adamw_torch --max_eval_samples 10"
    results = run_glue.main(arguments(tmp_path / "run", extra, data, "mnli"))
    assert set(results["metrics"]) == {"validation_matched", "validation_mismatched"}
    assert all(set(scores) == {"accuracy", "loss"} for scores in results["metrics"].values())
    assert len(results["history"]["evaluation"]) == 4


# ------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("--task_name coal", "did you mean cola"),
        ("--max_length 129", "from 1 to 128 tokens"),
        ("--max_length 0", "from 1 to 128 tokens"),
        ("--model_name_or_path no/such/model", "cannot load the model 'no/such/model'"),
        ("--model_name_or_path ./nowhere", "cannot load the model './nowhere'"),
        ("--lerning_rate 1", "unknown argument --lerning_rate: did you mean --learning_rate"),
        ("--optim adamw_wim", "invalid choice: .adamw_wim."),
        ("--resume_from_checkpoint nowhere", "no such checkpoint: nowhere"),
        ("--max_train_samples 0", "max_train_samples"),
    ],
)
def test_refused_before_anything_is_written(tmp_path, extra, message):
    with pytest.raises(RecipeError, match=message):
        run_glue.main(arguments(tmp_path / "run", extra))
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_not_overwritten_unasked(finished, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "copy")
    (copy / "checkpoint-99").mkdir()
    with pytest.raises(RecipeError, match=r"holds a finished run.*--overwrite"):
        run_glue.main(arguments(copy))
    (copy / "results.json").unlink()
    with pytest.raises(RecipeError, match="unfinished run"):
        leftovers(copy, resuming=False, overwrite=False)
    run_glue.main(arguments(copy, "--overwrite"))
    assert not (copy / "checkpoint-99").exists()
    assert json.loads((copy / "results.json").read_text())["optimizer"]["name"] == "adamw_torch_fused"


# ------------------------------------------------------------------------------------------------- arguments


def test_command_line_overrides_the_file(tmp_path):
    settings = tmp_path / "settings.yaml"
    settings.write_text(
        'task_name: rte\nlearning_rate: 4e-5\nsave_strategy: "no"\nlabel_names: [a, b]\nreport_to: none\nseed: null\n'
    )
    _, data_args, training_args = parse(run_glue.SCRIPT, [str(settings), "--learning_rate", "1e-5"])
    assert data_args.task_name == "rte"
    assert training_args.learning_rate == 1e-5
    assert training_args.save_strategy == "no"
    assert training_args.label_names == ["a", "b"]
    settings.write_text("task_name: rte\nlerning_rate: 1")
    with pytest.raises(RecipeError, match="did you mean --learning_rate"):
        parse(run_glue.SCRIPT, [str(settings)])
    settings.write_text("- task_name")
    with pytest.raises(RecipeError, match="argument: value"):
        parse(run_glue.SCRIPT, [str(settings)])
    with pytest.raises(RecipeError, match="no such settings file"):
        parse(run_glue.SCRIPT, [str(tmp_path / "none.yaml")])


@pytest.mark.parametrize(
    ("given", "expanded"),
    [
        (["--resume_from_checkpoint"], ["--resume_from_checkpoint", "true"]),
        (["--resume-from-checkpoint", "--seed", "1"], ["--resume-from-checkpoint", "true", "--seed", "1"]),
        (["--resume_from_checkpoint", "run/checkpoint-3"], ["--resume_from_checkpoint", "run/checkpoint-3"]),
    ],
)
def test_bare_resume(given, expanded):
    assert expand_arguments(given) == expanded


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_configs_hold_valid_arguments(config):
    _, data_args, training_args = parse(run_glue.SCRIPT, [str(config), "--fp16", "false"])
    assert data_args.task_name in TASKS
    if config.stem.startswith("adan_"):
        assert config.stem == f"adan_{data_args.task_name}"
        assert training_args.optim == "adan"
        assert training_args.optim_args.startswith("betas=0.98:0.9")


def test_fp16_needs_a_gpu():
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(RecipeError, match="--fp16 false"):
        parse(run_glue.SCRIPT, ["--task_name", "cola", "--fp16"])


def test_the_card_quotes_a_comparison(tmp_path):
    settings = Settings(
        ("x.py",), (), contenders.parse("adamw_torch,adamw_win", "1e-3", 1), command=("x.py", "--a", "1")
    )
    runs = {
        Run("final", label, 1e-3, seed): Outcome(
            "finished", steps=9, evaluations=({"step": 9, "eval_loss": loss + seed},)
        )
        for label, loss in (("adamw_torch", 0.5), ("adamw_win", 0.4))
        for seed in (1, 2, 3)
    }
    plan = Plan(tuple(runs), 0, {"adamw_torch": 1e-3, "adamw_win": 1e-3})
    write_json(tmp_path / "summary.json", summarize(settings, plan, runs))
    said = comparison(str(tmp_path), "adamw_win")
    assert "**adamw_win**: a tie" in said or "**adamw_win**: not enough runs" in said
    assert "| adamw_torch | 0.001 | 2.5 ± 1" in said and "hf-winopt compare x.py --a 1" in said
    with pytest.raises(RecipeError, match="is of adamw_torch, adamw_win, and not of adan"):
        comparison(str(tmp_path), "adan")
    with pytest.raises(RecipeError, match="--comparison gone"):
        comparison("gone", "adan")


def test_the_comparison_stands_in_the_card(finished):
    results = json.loads((finished / "results.json").read_text())
    assert results["comparison"] is None and "It is a tie." not in str(WinOptModelCard.from_results(results))
    assert "in other runs\n\nIt is a tie.\n" in str(
        WinOptModelCard.from_results({**results, "comparison": "It is a tie."})
    )


# ------------------------------------------------------------------------------------------------------ demo


def test_demo(tmp_path, capsys):
    for _ in range(2):  # again over the first
        demo.main(["--max_steps", "4", "--output_dir", str(tmp_path)])
    shown = capsys.readouterr().out
    assert "AdamW-Win" in shown
    assert "not reached" in shown
    assert "'loss'" not in shown  # no log lines between the bars
    assert 'optim="adamw_win"' in shown
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "adamw_win" / "README.md").exists()


def test_accumulated_batches_weigh_as_much_as_one(tmp_path):
    """Four batches of 8 make the loss of one of 32, not four times as much."""
    whole = run_glue.main(arguments(tmp_path / "whole", "--per_device_train_batch_size 32"))
    parts = "--per_device_train_batch_size 8 --gradient_accumulation_steps 4"
    cut = run_glue.main(arguments(tmp_path / "cut", parts))
    losses = [[entry["loss"] for entry in run["history"]["train"]] for run in (whole, cut)]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
