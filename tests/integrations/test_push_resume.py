"""A training that was interrupted goes on elsewhere, from what the Hub has of it, to the same bits."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integrations import test_push, test_push_transformer_xl
from tests.integrations.test_push import PLANT, PUSH, QUIET, Workplace

SAVED = "--max_steps 6 --save_strategy steps --save_steps 2 --eval_strategy steps --eval_steps 2"
RECIPES = {
    "glue": (
        "recipes.glue.run_glue",
        "--task_name cola --dataset_name embedded --max_train_samples 64 --max_eval_samples 32 --max_length 32 "
        "--optim adamw_win --optim_args reckless_steps=2:8 --learning_rate 1e-3",
    ),
    "transformer_xl": (
        "recipes.transformer_xl.run_transformer_xl",
        f"{test_push_transformer_xl.SIZES} --optim adam_win --learning_rate 1e-2 --dropout 0.2 "
        "--per_device_train_batch_size 4",
    ),
    "vit": (
        "recipes.vit.run_vit",
        f"--config_overrides {test_push.TINY} --max_train_samples 90 --max_eval_samples 40 --optim adamw_win "
        "--learning_rate 1e-2 --per_device_train_batch_size 16 --crop_scale 0.3 1 --mixup 0.8 --drop_path 0.3 "
        "--ema_decay 0.7",
    ),
}
# strategy -> where on the Hub it is gone on from, and the step of that
FROM = {"checkpoint": ("last-checkpoint", 4), "all_checkpoints": ("checkpoint-2", 2)}
# the loss falls, so the best by this is the first, and lies beside what is gone on from
BEST = "--load_best_model_at_end true --metric_for_best_model loss --greater_is_better true"

# what is pushed is stopped after the push of step 4, and before there is anything of step 6
INTERRUPT = """
import importlib, json, sys, traceback
from recipes.trainer import RecipeTrainer

class Interrupted(BaseException):
    pass

def until_the_last(trainer, *args, **kwargs):
    if trainer.args.push_to_hub and trainer.state.global_step == 5:
        trainer._finish_current_push()
        raise Interrupted
    return step(trainer, *args, **kwargs)

step, RecipeTrainer.training_step = RecipeTrainer.training_step, until_the_last
results = {}
for name, (script, argv) in json.load(sys.stdin).items():
    try:
        results[name] = importlib.import_module(script).main(argv)
    except Interrupted:
        results[name] = None
    except Exception:  # which must not hide what comes of the other recipes
        results[name] = traceback.format_exc()
print(json.dumps(results))
"""
GO_ON = """
import importlib, json, sys, traceback
from huggingface_hub import snapshot_download

results = {}
for name, (script, argv, id, checkpoint) in json.load(sys.stdin).items():
    try:
        argv += ["--resume_from_checkpoint", f"{snapshot_download(id)}/{checkpoint}"]
        results[name] = importlib.import_module(script).main(argv)
    except Exception:
        results[name] = traceback.format_exc()
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    """Trained as a whole; interrupted when some of it is on the Hub, and gone on with by a process that has only that.

    The results of the whole are under the name of the recipe, of the others under that of the repository.
    """
    with test_push.workplace(tmp_path_factory.mktemp("resumed")) as place:
        here, there = place.folder / "here", place.folder / "there"
        text = test_push_transformer_xl.write_text(place.folder)
        runs, again = {}, {}
        for name, (script, arguments) in RECIPES.items():
            if name == "vit" and importlib.util.find_spec("kornia") is None:
                continue
            arguments += f" {SAVED} {QUIET}" + f" --dataset_name {text}" * (name == "transformer_xl")
            runs[name] = script, f"{arguments} --output_dir {here / name}".split()
            pushed = {f"{name}-{strategy}": (*FROM[strategy], strategy, "") for strategy in FROM}
            if name == "transformer_xl":
                pushed["best"] = "checkpoint-4", 4, "all_checkpoints", BEST
                pushed["best-is-gone"] = "last-checkpoint", 4, "checkpoint", BEST
            for repo, (checkpoint, _, strategy, extra) in pushed.items():
                run = f"{arguments} {PUSH} --hub_model_id owner/{repo} --hub_strategy {strategy} {extra} --output_dir"
                runs[repo] = script, f"{run} {here / repo}".split()
                again[repo] = script, f"{run} {there / repo}".split(), f"owner/{repo}", checkpoint
        place.results = place.python(PLANT + INTERRUPT, runs, project=True)
        assert not any(place.results[repo] for repo in again), place.results
        here.rename(place.folder / "whole")  # elsewhere it would not be there
        place.results |= place.python(PLANT + GO_ON, again, project=True)
        yield place


def result(place: Workplace, name: str) -> dict[str, Any]:
    if name.startswith("vit"):
        pytest.importorskip("kornia")
    found = place.results[name]
    assert not isinstance(found, str), found
    return found


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("strategy", FROM)
@pytest.mark.parametrize("recipe", RECIPES)
def test_goes_on_to_the_same_bits(recipe: str, strategy: str, resumed: Workplace) -> None:
    repo, whole = f"{recipe}-{strategy}", result(resumed, recipe)
    again = result(resumed, repo)
    assert again["resumed_at_step"] == FROM[strategy][1]
    assert again["history"] == whole["history"] and again["metrics"] == whole["metrics"]
    assert weights(resumed.folder / "there" / repo) == weights(resumed.folder / "whole" / recipe)


@pytest.mark.parametrize("strategy", FROM)
@pytest.mark.parametrize("recipe", RECIPES)
def test_what_is_pushed_in_the_end_is_that(recipe: str, strategy: str, resumed: Workplace) -> None:
    repo, (checkpoint, step) = f"{recipe}-{strategy}", FROM[strategy]
    assert result(resumed, repo)["resumed_at_step"] == step
    files = resumed.server.files(f"owner/{repo}")
    for name in ("model.safetensors", "README.md", "results.json"):
        assert files[name] == (resumed.folder / "there" / repo / name).read_bytes()
    assert f"from step {step} on" in files["README.md"].decode()
    assert f"{checkpoint}/optimizer.pt" in files


def test_the_best_of_before_is_found_again(resumed: Workplace) -> None:
    again = result(resumed, "best")
    losses = {
        entry["step"]: entry["loss"] for entry in again["history"]["evaluation"] if entry["split"] == "validation"
    }
    assert again["resumed_at_step"] == 4 and losses[2] == max(losses.values())
    files = resumed.server.files("owner/best")
    assert (
        files["model.safetensors"] == files["checkpoint-2/model.safetensors"] != files["checkpoint-6/model.safetensors"]
    )


def test_goes_on_where_the_best_of_before_is_not_on_the_hub(resumed: Workplace) -> None:
    """Then the last is what there is, as it is where Trainer itself cannot find the best."""
    assert result(resumed, "best-is-gone")["resumed_at_step"] == 4
    folder = resumed.folder / "there" / "best-is-gone"
    assert weights(folder) == weights(resumed.folder / "whole" / "transformer_xl")
    assert resumed.server.files("owner/best-is-gone")["model.safetensors"] == weights(folder)


REPOS = [*(f"{recipe}-{strategy}" for recipe in RECIPES for strategy in FROM), "best", "best-is-gone"]


@pytest.mark.parametrize("repo", REPOS)
def test_nothing_private_is_pushed(repo: str, resumed: Workplace) -> None:
    """Nor where the checkpoint was that it went on from."""
    assert result(resumed, repo)
    test_push.check_nothing_private(resumed.server, f"owner/{repo}")
