"""The plain Accelerate scripts push what Trainer would, when it would."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest

from tests.integrations import test_push, test_push_transformer_xl
from tests.integrations.hub_client import pushed, read
from tests.integrations.test_push import CHECKPOINTS, EACH, PUSH, QUIET, Workplace

GLUE = "recipes.glue.run_glue_no_trainer"
COLA = (
    "--task_name cola --dataset_name embedded --max_train_samples 64 --max_eval_samples 32 --max_length 32 "
    "--optim adamw_win --learning_rate 1e-3 --max_steps 4 --save_steps 2 --save_strategy steps"
)
GO_ON = """
import importlib, json, sys
from huggingface_hub import snapshot_download

script, argv, id = json.load(sys.stdin)
argv += ["--resume_from_checkpoint", f"{snapshot_download(id)}/checkpoint-2"]
print(json.dumps(importlib.import_module(script).main(argv)))
"""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    with test_push.workplace(tmp_path_factory.mktemp("plain")) as place:
        place.push(GLUE, COLA)
        yield place


@EACH
def test_what_is_pushed_is_what_was_trained(strategy: str, plain: Workplace) -> None:
    test_push.check_files(plain, strategy)
    files = plain.server.files(f"owner/{strategy}")
    assert "trained with adamw_win" in files["README.md"].decode()
    assert f'model="owner/{strategy}"' in files["README.md"].decode()
    states = [path for path in test_push.every_path(plain.server, f"owner/{strategy}") if "optimizer" in path]
    assert len(states) == CHECKPOINTS[strategy]
    titles = [commit.title for commit in plain.server.repo(f"owner/{strategy}").history("main")]
    on_the_way = [f"Training in progress, step {step}" for step in (4, 2)] * (strategy != "end")
    assert titles[:-1] == ["Model, card and results", *on_the_way]
    test_push.check_nothing_private(plain.server, f"owner/{strategy}")


def test_goes_on_from_the_hub_to_the_same_bits(plain: Workplace) -> None:
    folder = plain.folder / "gone on"
    argv = [*f"{COLA} {QUIET}".split(), "--output_dir", str(folder)]
    again = plain.python(GO_ON, [GLUE, argv, "owner/all_checkpoints"], project=True)
    assert again["resumed_at_step"] == 2
    assert (folder / "model.safetensors").read_bytes() == (plain.folder / "end" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("recipe", ["transformer_xl", "vit"])
def test_the_others_push_too(recipe: str, plain: Workplace) -> None:
    if recipe == "vit" and importlib.util.find_spec("kornia") is None:
        pytest.skip("needs kornia")
    arguments = test_push.DIGITS
    if recipe == "transformer_xl":
        text = test_push_transformer_xl.write_text(plain.folder)
        arguments = (
            f"{test_push_transformer_xl.SIZES} --optim adam_win --learning_rate 1e-2 --max_steps 4 "
            f"--save_steps 2 --save_strategy steps --per_device_train_batch_size 4 --dataset_name {text}"
        )
    script = f"recipes.{recipe}.run_{recipe}_no_trainer"
    line = f"{arguments} {QUIET} {PUSH} --hub_strategy checkpoint --hub_model_id owner/{recipe}"
    argv = [*line.split(), "--output_dir", str(plain.folder / recipe)]
    (plain.results[recipe],) = plain.python(test_push.PLANT + test_push.TRAIN, [script, [argv]], project=True)
    files, local = pushed(plain.server, f"owner/{recipe}"), read(plain.folder / recipe)
    for name, content in files.items():
        assert content == local[name.replace("last-checkpoint", "checkpoint-4")], name
    assert "last-checkpoint/optimizer.bin" in files and "results.json" in files
    assert any(name.endswith(".py") for name in files) == (recipe == "transformer_xl")
    test_push.check_nothing_private(plain.server, f"owner/{recipe}")
