"""What a recipe pushes can be loaded anywhere and scores what its card says: the real client, a Hub on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.hub_server import HubServer
from tests.integrations.hub_client import ROOT, pushed, read

# strategy -> how many states of an optimizer it leaves on the Hub, of two saves
CHECKPOINTS = {"end": 0, "every_save": 0, "checkpoint": 1, "all_checkpoints": 2}
TWO = ("end", "checkpoint")  # the others push nothing else
EACH = pytest.mark.parametrize("strategy", CHECKPOINTS)
QUIET = "--report_to none --disable_tqdm true --use_cpu true --dataloader_pin_memory false --logging_steps 1"
PUSH = "--push_to_hub true --hub_private_repo true --hub_always_push true --hub_token hf_argument"

TOKENS = {"hf_owner": "owner", "hf_argument": "owner"}
SECRETS = {"WANDB_API_KEY": "of-another-service", "MY_SECRET": "in-the-environment", "USER": "alice-secret-user"}
HOST, FOLDER = "alice-secret-host", "alice-secret-folder"
PLANT = f"import socket; socket.gethostname = lambda: {HOST!r}\n"
TRAIN = """
import importlib, json, sys

script, runs = json.load(sys.stdin)
main = importlib.import_module(script).main
print(json.dumps([main(argv) for argv in runs]))
"""


@dataclass
class Workplace:
    """A Hub, and a folder from which it is pushed to; neither its name nor any of the secrets must get there."""

    server: HubServer
    folder: Path
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    _homes: int = 0

    def python(self, code: str, request: Any, *, project: bool = False) -> Any:
        """What a process of its own makes of a request: it has an empty cache and, unless told to, nothing of ours."""
        self._homes += 1
        home = self.folder / f"home-{self._homes}"
        home.mkdir()
        known = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment = {**known, **SECRETS, **self.server.environment(home, "hf_owner"), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, *([] if project else ["-I"]), "-c", code],
            cwd=ROOT if project else home,
            env={**environment, "TOKENIZERS_PARALLELISM": "false"},
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def push(self, script: str, arguments: str, strategies: Iterable[str] = CHECKPOINTS, **others: str) -> None:
        """Train by a recipe's script and push, once with each strategy, and by the other arguments that are given."""
        names = {strategy: f"--hub_strategy {strategy}" for strategy in strategies} | others
        runs = [
            f"{arguments} {QUIET} {PUSH} {more} --hub_model_id owner/{name} --output_dir {self.folder / name}".split()
            for name, more in names.items()
        ]
        self.results = dict(zip(names, self.python(PLANT + TRAIN, [script, runs], project=True)))


@contextmanager
def workplace(folder: Path) -> Iterator[Workplace]:
    (folder / FOLDER).mkdir()
    with HubServer(folder / "hub", TOKENS) as server:
        yield Workplace(server, folder / FOLDER)


def check_files(place: Workplace, strategy: str) -> None:
    """On the Hub is what lies in the folder, and of the checkpoints what the strategy says."""
    local, files = read(place.folder / strategy), pushed(place.server, f"owner/{strategy}")
    assert {"README.md", "results.json", "curves.png", "model.safetensors", "config.json"} <= files.keys()
    checkpoints = {path for path in files if "/" in path}
    assert files.keys() - checkpoints == {path for path in local if "/" not in path}
    last = max(path.split("/")[0] for path in local if path.startswith("checkpoint-"))
    for path, content in files.items():
        assert content == local[path.replace("last-checkpoint", last)], path
    folders = {path.split("/")[0] for path in checkpoints}
    assert len(folders) == CHECKPOINTS[strategy] and ("last-checkpoint" in folders) == (strategy == "checkpoint")
    assert json.loads(files["results.json"]) == place.results[strategy]


def check_states(place: Workplace, strategy: str) -> None:
    """The optimizer's state, several times as large as the model, is on the Hub only to go on from."""
    states = {"optimizer.pt", "scheduler.pt", "rng_state.pth"}
    found = [path for path in every_path(place.server, f"owner/{strategy}") if path.split("/")[-1] in states]
    assert len(found) == len(states) * CHECKPOINTS[strategy], found


def check_nothing_private(server: HubServer, id: str) -> None:
    """In no file, and in no message, of any commit."""
    private = [*TOKENS, *SECRETS.values(), HOST, FOLDER, str(ROOT), str(server.repo(id).path.parents[2])]
    found, seen = set(), set()
    repo = server.repo(id)
    for commit in repo.history("main"):
        texts = {"the message": f"{commit.title}\n{commit.message}".encode()}
        for path, entry in repo.tree(commit.oid).items():
            if not entry.folder and entry.oid not in seen:
                seen.add(entry.oid)
                texts[path] = path.encode() + b"\n" + repo.content(entry)
        found |= {(path, word) for path, text in texts.items() for word in private if word.encode() in text}
    assert not found
    assert len(seen) > 5


def every_path(server: HubServer, id: str) -> set[str]:
    """Of every commit."""
    repo = server.repo(id)
    return {path for commit in repo.history("main") for path in repo.tree(commit.oid)}


# ------------------------------------------------------------------------------------------ images, by the pipeline


TINY = '{"hidden_size":16,"num_hidden_layers":2,"num_attention_heads":2,"intermediate_size":16}'
DIGITS = (
    f"--config_overrides {TINY} --max_train_samples 90 --max_eval_samples 40 --optim adamw_win --learning_rate 1e-2 "
    "--max_steps 4 --save_steps 2 --per_device_train_batch_size 16 --license apache-2.0"
)
CLASSIFY = """
import json, math, sys
from transformers import pipeline
from recipes.vit import sources

source = sources.load(sources.EMBEDDED, None)
images = [source.open("test", row) for row in range(40)]
truth = [str(label) for label in source.splits["test"]["label"][:40]]
found = {}
for name in json.load(sys.stdin):
    answers = pipeline("image-classification", model=name, device="cpu")(images, top_k=10)
    right = [answer[0]["label"] == label for answer, label in zip(answers, truth)]
    losses = [-math.log(each["score"]) for answer, label in zip(answers, truth) for each in answer
              if each["label"] == label]
    found[name] = {"accuracy": sum(right) / 40, "loss": sum(losses) / 40}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    pytest.importorskip("kornia")
    with workplace(tmp_path_factory.mktemp("digits")) as place:
        place.push("recipes.vit.run_vit", DIGITS, averaged="--hub_strategy end --ema_decay 0.7")
        yield place


@pytest.fixture(scope="module")
def scores(digits: Workplace) -> dict[str, dict[str, float]]:
    """What everything on the Hub scores."""
    return digits.python(CLASSIFY, [f"owner/{name}" for name in digits.results], project=True)


@EACH
def test_what_is_pushed_is_what_was_trained(strategy: str, digits: Workplace, scores: dict) -> None:
    check_files(digits, strategy)
    files = digits.server.files(f"owner/{strategy}")
    assert "preprocessor_config.json" in files and "trained with adamw_win" in files["README.md"].decode()
    assert scores[f"owner/{strategy}"] == pytest.approx(digits.results[strategy]["metrics"]["test"], rel=1e-5)


def test_averaged_weights_are_pushed_where_they_were_evaluated(digits: Workplace, scores: dict) -> None:
    assert scores["owner/averaged"]["loss"] != pytest.approx(scores["owner/end"]["loss"], rel=1e-3)
    assert scores["owner/averaged"] == pytest.approx(digits.results["averaged"]["metrics"]["test"], rel=1e-5)


@EACH
def test_state_only_where_checkpoints_are_pushed(strategy: str, digits: Workplace) -> None:
    check_states(digits, strategy)


@EACH
def test_nothing_private_is_pushed(strategy: str, digits: Workplace) -> None:
    check_nothing_private(digits.server, f"owner/{strategy}")
