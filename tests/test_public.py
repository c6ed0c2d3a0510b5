"""What is shown of a command line to others."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from hf_winopt.public import ROOT, own_command, public_command, public_text, wrapped


def test_public_command(tmp_path):
    secret = [
        "--wandb_api_key=hf_abc",
        "--hub_token",
        "hf_abc",
        f"--dataset_name={tmp_path}/glue",
        "--hub-token=hf_abc",
        "--optim_args",
        "a=1",
    ]
    assert public_command(["python", "run.py"], secret) == "python run.py --dataset_name=PATH_TO/glue --optim_args a=1"
    inside = [str(ROOT / "recipes" / "x.yaml"), "../../glue"]
    assert public_command(["python", "run.py"], inside) == "python run.py recipes/x.yaml PATH_TO/glue"


def test_public_text():
    text = f"No such file: '/home/ann/data/x.csv' (https://a.b/c/d, and/or, {ROOT}/tests/x.py)"
    assert public_command(
        (), ["--a=/home/ann/lr=3/x", '--kw={"p": "/home/ann/x", "q": "a=b"}', "file:///home/ann/x"]
    ) == ("""--a=PATH_TO/x '--kw={"p": "PATH_TO/x", "q": "a=b"}' file://PATH_TO/x""")
    assert public_command((), ["--data", "json:/home/ann/x.json", "--label_key", "y"]) == (
        "--data json:PATH_TO/x.json --label_key y"
    )
    assert public_text(text) == "No such file: 'PATH_TO/x.csv' (https://a.b/c/d, and/or, tests/x.py)"
    assert public_text("--note hf_AbCdEfGhIjKlMnOpQrStUv and hf_winopt") == "--note hf_TOKEN and hf_winopt"


@pytest.mark.parametrize(
    "line",
    [
        *(
            f"--{name} S3CRET"
            for name in ("api_key", "api-key", "wandb_token", "hf.token", "passwd", "private_key", "auth")
        ),
        "--credentials=S3CRET",
        "-token S3CRET",
        "--hub_tok S3CRET",
        "hub_token=S3CRET",
        "trainer.hub_token=S3CRET",
        "--uri http://ann:S3CRET@host/x",
        """--json {"hub_token":"S3CRET","n":1}""",
    ],
)
def test_a_secret_is_not_shown_however_it_is_given(line):
    shown = public_command(["python"], [*line.split(" "), "--lr", "1"])
    assert "S3CRET" not in shown and shown.endswith("--lr 1")


def test_what_is_no_secret_is_shown():
    line = "--pad_token [PAD] --label_key y model.lr=1 --key_dim 3 --tokenizer_name x -5"
    assert public_command(["python"], line.split()) == f"python {line.replace('[PAD]', chr(39) + '[PAD]' + chr(39))}"


def test_a_wrapped_command_is_the_same_command():
    command = "python train.py --note 'a  --b' --x \"c --d\" " + " ".join(f"--option_{i} {i}" for i in range(9))
    lines = wrapped(command, width=40).split(" \\\n")
    assert len(lines) > 3 and max(map(len, lines)) < 60
    assert shlex.split(" ".join(lines)) == shlex.split(command)


@pytest.mark.parametrize(
    ("words", "processes", "shown"),
    [
        (["HERE/train.py", "--lr", "1", "--hub_token", "x"], 1, "python train.py --lr 1"),
        (["-u", "-X", "dev", "-Wignore", "train.py"], 1, "python train.py"),
        (["train.py", "--out", "/home/ann/x"], 4, "accelerate launch --num_processes 4 train.py --out PATH_TO/x"),
        (["-m", "train", "a b"], 1, "python -m train 'a b'"),
        (["-m", "train"], 2, "accelerate launch --num_processes 2 -m train"),
        (["BIN/hf-winopt", "run", "train.py", "--optim", "adan"], 1, "hf-winopt run train.py --optim adan"),
        (["-m", "ipykernel_launcher", "-f", "x.json"], 1, None),
        (["-c", "print(1)"], 1, None),
        (["BIN/ipython"], 1, None),
        (["/databricks/db_ipykernel_launcher.py", "-f", "x"], 1, None),
        (["-", "x"], 1, None),
        ([], 1, None),
    ],
)
def test_own_command(words, processes, shown, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = {"HERE": str(tmp_path), "BIN": str(Path(sys.executable).parent)}
    for name, place in places.items():
        words = [word.replace(name, place) for word in words]
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, *words])
    assert own_command(processes) == shown


def test_own_command_of_a_real_process(tmp_path):
    (tmp_path / "train.py").write_text("from hf_winopt.public import own_command; print(own_command())")
    command = [sys.executable, "-u", str(tmp_path / "train.py"), "--hub_token", "x", "--lr", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "python train.py --lr 1", done.stderr
