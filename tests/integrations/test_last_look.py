"""Nothing private is pushed: what is found, where, and that the refusal does not tell it either."""

from __future__ import annotations

import io
import json
import os
import pickle
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from hf_winopt.integrations import last_look
from hf_winopt.integrations.last_look import find_private, private_words
from tests.integrations.hub_client import alone, hub, pushed, read
from tests.integrations.test_push_command import push, sent, trained

SECRET = "s3cr3t-of-nobody"


@pytest.fixture
def words(tmp_path, monkeypatch):
    """What is private on a machine with a few secrets."""
    monkeypatch.setenv("HOME", "/home/ännchen")
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    monkeypatch.setenv("SIGNING_KEY", "line one\nline two")
    monkeypatch.setenv("SHORT_TOKEN", "abc")
    monkeypatch.setenv("PLAIN", "not private")
    return private_words(tmp_path / "out", "hf_mine_alone")


def saved(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["text", "json", "pickle", "torch"])
@pytest.mark.parametrize(
    ("private", "what"),
    [
        ("hf_mine_alone", "the token in use"),
        (SECRET, "the value of the environment variable WANDB_API_KEY"),
        ("line one\nline two", "the value of the environment variable SIGNING_KEY"),
        ("/home/ännchen/models", "the path of the home directory"),
        ("/home/ännchen", "the path of the home directory"),
        ("FOLDER", "the path of the folder itself"),
        ("FOLDER/checkpoint-2", "the path of the folder itself"),
    ],
)
def test_what_is_found(form, private, what, words, tmp_path):
    private = private.replace("FOLDER", str(tmp_path / "out"))
    write = {"text": str.encode, "json": lambda value: json.dumps({"at": value}).encode(), "torch": saved}
    content = write.get(form, lambda value: pickle.dumps({"at": value}))(private)
    (tmp_path / "file").write_bytes(b"before" + content)
    assert find_private(content, words) == find_private(tmp_path / "file", words) == what


@pytest.mark.parametrize("content", [b"", b"abc", b"not private", b"/home/anna/x", b"/tmp/out", b"HOME WANDB_API_KEY"])
def test_what_is_nobodys_secret(content, words):
    assert find_private(content, words) is None


def test_across_the_pieces_of_a_large_file(words, tmp_path):
    file, word = tmp_path / "model.safetensors", max(words, key=len)
    with patch.object(last_look, "CHUNK", 1000):
        for at in range(1000 - len(word) - 1, 1002):
            file.write_bytes(bytes(at) + word + bytes(2500 - at))
            assert find_private(file, words) == words[word], at
        file.write_bytes(bytes(990) + word[:10] + bytes(1000) + word[10:])
        assert find_private(file, words) is None


def test_short_paths_are_everybodys(monkeypatch):
    monkeypatch.setenv("HOME", "/root")
    words = private_words(Path("/out"), None)
    assert find_private(b'{"/root": 1, "/out": 2}', words) is None
    assert find_private(b"/root/models", words) == "the path of the home directory"
    monkeypatch.setenv("HOME", "/")
    assert find_private(b"https://root/models", private_words(Path("/out"), None)) is None


@alone
def test_a_push_with_something_private_in_it(tmp_path: Path) -> None:
    with hub(tmp_path) as (server, _):
        folder = tmp_path / "out"
        files = trained(folder)
        os.environ["WANDB_API_KEY"] = SECRET
        large = bytes(last_look.CHUNK - 5) + SECRET.encode() + bytes(100)
        planted = {
            "config.json": (b'{"data": "%s/base"}' % os.fsencode(folder), "the path of the folder itself"),
            "logs/notes.txt": (b"hf_owner", "the token in use"),
            "logs/token.txt": (b"hf_" + b"aB3" * 11 + b"x", "a token of the Hub"),
            "vocab.txt": (large, "the value of the environment variable WANDB_API_KEY"),
            "results.json": (files["results.json"].replace(b"vit from scratch", b"hf_owner"), "the token in use"),
        }
        for name, (content, what) in planted.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
            status, out, err = push(folder, "owner/model")
            assert status == 1 and f"{folder / name} has {what} in it" in err, err
            assert SECRET not in out + err and "hf_owner" not in out + err
            (folder / name).write_bytes(files.get(name, b""))
        assert server.requests == [] and not (folder / "README.md").exists()

        (folder / "training_args.bin").write_bytes(saved({"output_dir": str(folder), "hub_token": "hf_owner"}))
        (folder / "checkpoint-10" / "training_args.bin").write_bytes(saved({"logging_dir": str(folder / "runs")}))
        (folder / "config.json").write_text(json.dumps({"_name_or_path": f"{folder}/base", "model_type": "vit"}))
        (folder / "wandb").mkdir()
        (folder / "wandb" / "meta.json").write_text("{}")
        (folder / "runs" / "events.out.tfevents.1.host").write_bytes(b"output_dir: " + os.fsencode(folder))
        (folder / "trainer_state.json").write_text(json.dumps({"best_model_checkpoint": str(folder / "checkpoint-2")}))
        before = read(folder)
        status, out, err = push(folder, "owner/model", "--with-optimizer")
        assert status == 0, err
        rows = {line.split()[0]: line for line in out.splitlines()}
        assert "left out: has the token in use in it" in rows["training_args.bin"]
        assert "left out: has the path of the folder" in rows["last-checkpoint/training_args.bin"]
        assert "left out: has the path of the folder" in rows["runs/events.out.tfevents.1.host"]
        served = pushed(server, "owner/model")
        assert json.loads(served["config.json"]) == {"_name_or_path": "base", "model_type": "vit"}
        assert "another tool's log" in rows["wandb/"]
        assert not [name for name in served if name.endswith("training_args.bin")]
        assert json.loads(served["trainer_state.json"]) == {"best_model_checkpoint": "checkpoint-2"}
        for name, content in served.items():
            assert b"hf_owner" not in content and os.fsencode(folder) not in content, name
        after = read(folder)
        del after["README.md"]
        assert after == before

        (folder / "trainer_state.json").write_text(json.dumps({"best_model_checkpoint": None, "note": "hf_owner"}))
        already = len(sent(server))
        status, _, err = push(folder, "owner/model")
        assert status == 1 and "trainer_state.json has the token in use in it" in err and len(sent(server)) == already
