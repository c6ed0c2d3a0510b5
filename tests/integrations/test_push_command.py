"""`hf-winopt push`: what is served is what was trained, and nothing is sent of what should not be."""

from __future__ import annotations

import json
import os
import random
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from hf_winopt import cli
from hf_winopt.public import ROOT
from tests.hub_server import HubServer
from tests.integrations.hub_client import CARD, alone, hub, pushed, read

RESULTS = ROOT / "model_cards" / "vit_digits" / "results.json"
MODEL = ("config.json", "model.safetensors", "results.json", "tokenizer.json", "trainer_state.json", "vocab.txt")
LAST = "last-checkpoint/"


def weights(size: int, draw: random.Random) -> bytes:
    """A safetensors file with so many random bytes."""
    header = json.dumps({"weight": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return len(header).to_bytes(8, "little") + header + draw.randbytes(size)


def trained(folder: Path, seed: int = 0) -> dict[str, bytes]:
    """A run's folder as a recipe leaves it; what is pushed of it without being asked for more."""
    draw = random.Random(seed)
    files = {
        "config.json": b'{"model_type": "vit"}',
        "model.safetensors": weights(300_000, draw),
        "tokenizer.json": b'{"version": "1.0"}',
        "vocab.txt": b"one\ntwo\n",
        "results.json": RESULTS.read_bytes(),
        "trainer_state.json": b'{"best_model_checkpoint": null}',
        "training_args.bin": b"pickled",
        "runs/events.out": b"logged",
    }
    beside = {"_scratch/notes.txt": b"", ".hidden/key": b"", "half.bin.partial": b"", "optimizer.pt": b"state"}
    for step in (2, 10):
        best = json.dumps({"best_model_checkpoint": str(folder / "checkpoint-2")}).encode()
        state = {"optimizer.pt": draw.randbytes(200_000), "rng_state.pth": b"random", "trainer_state.json": best}
        saved = {**state, "config.json": files["config.json"], "model.safetensors": weights(300_000, draw)}
        beside |= {f"checkpoint-{step}/{name}": content for name, content in saved.items()}
    for name, content in {**files, **beside}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return files


def push(*line: str | Path) -> tuple[int, str, str]:
    """The command's exit status and what it prints and complains of."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = cli.main(["push", *map(str, line)])
    return status, out.getvalue(), err.getvalue()


def sent(server: HubServer) -> list[str]:
    return [f"{each.method} {each.path}" for each in server.requests if each.method in ("POST", "PUT", "DELETE")]


@alone
def test_what_is_served_is_what_was_trained(tmp_path: Path) -> None:
    with hub(tmp_path) as (server, _):
        folder = tmp_path / "out"
        files = trained(folder)
        before = read(folder)
        status, out, err = push(folder, "owner/model")
        assert status == 0, err
        after = read(folder)
        card = after.pop("README.md")
        assert b"trained with adamw_win" in card and after == before
        assert pushed(server, "owner/model") == {**files, "README.md": card}
        assert not server.repo("owner/model").private
        rows = {line.split()[0]: line for line in out.splitlines()}
        assert "300.1 kB  sent" in rows["model.safetensors"] and "left out" in rows["checkpoint-10/"]
        assert "training" in rows["optimizer.pt"] and "hidden" in rows[".hidden/"]
        assert "left out" in rows["_scratch/"] and "left out" in rows["half.bin.partial"]
        assert out.splitlines()[-1] == f"{server.url}/owner/model"

        before_second = len(server.requests)
        status, out, _ = push(folder, "owner/model")
        assert status == 0 and "nothing has changed" in out and out.count("unchanged") == len(files) + 1
        assert not [each for each in server.requests[before_second:] if each.method != "GET"]
        assert len(server.repo("owner/model").history("main")) == 2


@alone
def test_with_the_optimizer_a_training_can_be_gone_on_from(tmp_path: Path) -> None:
    with hub(tmp_path) as (server, _):
        folder = tmp_path / "out"
        files = trained(folder)
        assert push(folder, "owner/model", "--private", "--with-optimizer")[0] == 0
        assert server.repo("owner/model").private
        served = pushed(server, "owner/model")
        last = {name.removeprefix(LAST): served.pop(name) for name in list(served) if name.startswith(LAST)}
        there = read(folder / "checkpoint-10")
        assert json.loads(last.pop("trainer_state.json")) == {"best_model_checkpoint": "checkpoint-2"}
        assert str(folder) in there.pop("trainer_state.json").decode(), "what lies here stays as it is"
        assert last == there and set(served) == {*files, "README.md"}

        from hf_winopt.integrations.push import push_run

        (folder / "checkpoint-2" / "scaler.pt").write_bytes(b"scale")
        told: list[str] = []
        done = push_run(folder, "model", with_optimizer=True, checkpoint="checkpoint-2", report=told.append)
        assert done.repo_id == "owner/model" and done.commit_url.startswith(f"{server.url}/owner/model/commit/")
        assert done.sent and all(name.startswith(LAST) for name in done.sent), "the model itself is there"
        assert not done.deleted and server.repo("owner/model").private and "checkpoint-2" in told[0]
        served = pushed(server, "owner/model")
        for name in ("optimizer.pt", "model.safetensors", "scaler.pt"):
            assert served[LAST + name] == (folder / "checkpoint-2" / name).read_bytes(), name
        (folder / "checkpoint-2" / "scaler.pt").unlink()
        done = push_run(folder, "model", with_optimizer=True, checkpoint="checkpoint-2", report=told.append)
        assert (done.sent, done.deleted) == ((), (f"{LAST}scaler.pt",)) and "deleted" in told[-1]
        assert f"{LAST}scaler.pt" not in pushed(server, "owner/model")
        push_run(folder, "model", report=told.append)
        assert f"{LAST}optimizer.pt" in pushed(server, "owner/model"), "deleted only by what takes its place"


@alone
def test_a_checkpoint_by_itself(tmp_path: Path) -> None:
    with hub(tmp_path) as (server, _):
        trained(tmp_path / "out")
        folder = tmp_path / "out" / "checkpoint-10"
        status, out, _ = push(folder, "model")
        model = {"config.json", "model.safetensors", "trainer_state.json"}
        assert status == 0 and set(pushed(server, "owner/model")) == model and "no model card" in out
        assert push(folder, "model", "--with-optimizer")[0] == 0
        served = pushed(server, "owner/model")
        assert set(served) == model | {LAST + name for name in read(folder)}
        assert served[f"{LAST}optimizer.pt"] == (folder / "optimizer.pt").read_bytes()


@alone
def test_of_an_earlier_push_only_what_would_be_mixed_with_it_is_deleted(tmp_path: Path) -> None:
    with hub(tmp_path) as (server, api):
        from huggingface_hub import CommitOperationAdd

        folder = tmp_path / "out"
        trained(folder)
        (folder / "README.md").write_text(CARD)
        old = ["model-00001-of-00002.safetensors", "model.safetensors.index.json", "pytorch_model.bin"]
        kept = ["demo.png", "other/model.safetensors", "merges.txt"]
        api.create_repo("owner/model")
        operations = [CommitOperationAdd(name, name.encode()) for name in [*old, *kept]]
        api.create_commit("owner/model", operations, commit_message="By hand")
        status, out, _ = push(folder, "owner/model")
        served = pushed(server, "owner/model")
        assert status == 0 and all(served[name] == name.encode() for name in kept)
        assert not served.keys() & set(old) and out.count("deleted: of an earlier push") == len(old)
        assert served["README.md"] == CARD.encode(), "a card that is there goes as it is"
        assert len(server.repo("owner/model").history("main")) == 3


@alone
def test_on_a_branch_and_past_a_gitignore(tmp_path: Path) -> None:
    with hub(tmp_path) as (server, api):
        from hf_winopt.integrations.push import PushError, push_run

        folder = tmp_path / "out"
        files = trained(folder)
        push_run(folder, "owner/model", revision="try", report=str)
        assert pushed(server, "owner/model", "try").items() >= files.items() and pushed(server, "owner/model") == {}
        api.upload_file(path_or_fileobj=b"vocab.txt\n", path_in_repo=".gitignore", repo_id="owner/model")
        with pytest.raises(PushError, match=r"keeps out: vocab\.txt$"):
            push_run(folder, "owner/model", report=str)


@alone
def test_what_is_wrong_is_said_before_anything_is_sent(tmp_path: Path) -> None:
    with hub(tmp_path) as (server, api):
        folder = tmp_path / "out"
        trained(folder)
        whole = read(folder)

        def refused(*said: str, to: str = "owner/new", more: tuple[str, ...] = (), at: Path = folder) -> None:
            status, out, err = push(at, to, *more)
            assert status == 1 and err.startswith("hf-winopt push: ") and "Traceback" not in err, (out, err)
            assert all(part in err for part in said), err
            for name in whole:
                (folder / name).write_bytes(whole[name])

        refused("no such folder", "--output_dir", at=tmp_path / "nowhere")
        refused("REPO_ID 'a/b/c'", "OWNER/NAME is needed", to="a/b/c")
        (folder / "results.json").write_bytes(whole["results.json"][:1000])
        refused("results.json cannot be read")
        (folder / "results.json").write_text('{"scores": []}')
        refused("no model card can be made of", "have no")
        (folder / "config.json").write_text("[]")
        refused("config.json must hold a JSON object")
        (folder / "model.safetensors").unlink()
        refused("the run has not finished", f"{folder / 'checkpoint-10'}")
        (folder / "config.json").unlink()
        refused("has no model", "config.json or adapter_config.json")
        (folder / "README.md").write_text("---\ntags: [a\n---\n")
        refused("the metadata of", "README.md cannot be read")
        (folder / "README.md").unlink()
        index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        refused("names weights that are not there: model-2.safetensors")
        (folder / "model.safetensors.index.json").unlink()
        (folder / "model.safetensors").write_bytes(whole["model.safetensors"][:-1])
        refused("model.safetensors is not whole")
        (folder / "model.safetensors").write_bytes(b"")
        refused("model.safetensors is not whole")
        (folder / "trainer_state.json").write_text("no state")
        refused("trainer_state.json is not the JSON that it should be")
        for step in (2, 10):
            (folder / f"checkpoint-{step}" / "optimizer.pt").unlink()
        (folder / "optimizer.pt").unlink()
        refused("--with-optimizer: no checkpoint in", "--save_strategy steps", more=("--with-optimizer",))

        from hf_winopt.integrations.push import PushError, push_run

        wrong = {
            "no such folder": {"with_optimizer": True, "checkpoint": "checkpoint-3"},
            "no optimizer's state": {"with_optimizer": True, "checkpoint": "runs"},
            "only pushed with with_optimizer": {"checkpoint": "checkpoint-2"},
            "checkpoint_name '../up'": {"checkpoint_name": "../up"},
        }
        for said, options in wrong.items():
            with pytest.raises(PushError, match=said):
                push_run(folder, "owner/new", report=str, **options)
        (folder / "note.md").write_text("see hf_owner")
        refused("note.md has the token in use in it")
        (folder / "note.md").unlink()
        token = os.environ.pop("HF_TOKEN")
        refused("there is no token", "hf auth login")
        os.environ["HF_TOKEN"] = token
        assert sent(server) == [] and not (folder / "README.md").exists()
        api.create_repo("owner/public")
        already = len(sent(server))
        refused("owner/public is there already, and is public", to="owner/public", more=("--private",))
        assert len(sent(server)) == already and pushed(server, "owner/public") == {}


@alone
def test_offline_nothing_is_asked(tmp_path: Path) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    trained(tmp_path / "out")
    status, _, err = push(tmp_path / "out", "owner/model")
    assert status == 1 and "HF_HUB_OFFLINE is set" in err
