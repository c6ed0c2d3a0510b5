"""The command line: in this process where that shows everything, in one of its own where it must."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import hf_winopt
from hf_winopt import cli
from hf_winopt.optim import registry
from hf_winopt.rules import STATES

REPORT = """
import json, sys
from beside import value
print(json.dumps([value, sys.argv, sys.path[0], __name__, sys.modules["__main__"].__dict__ is globals()]))
"""
FAIL = """
import sys
def fail(kind):
    raise kind("in the script")
fail({"error": ValueError, "interrupt": KeyboardInterrupt, "exit": SystemExit}[sys.argv[1]])
"""
TRAIN = """
import torch
from transformers import BertConfig, BertForSequenceClassification, HfArgumentParser
from transformers import Trainer, TrainingArguments

(args,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses()
torch.manual_seed(0)
sizes = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
model = BertForSequenceClassification(BertConfig(vocab_size=50, max_position_embeddings=8, **sizes))
data = [{"input_ids": torch.arange(8), "labels": index % 2} for index in range(8)]
trainer = Trainer(model=model, args=args, train_dataset=data)
trainer.train()
group = trainer.optimizer.param_groups[0]
print("TRAINED", type(trainer.optimizer.optimizer).__name__, group["acceleration"], group["reckless_steps"])
"""
TRAIN_LINE = "--optim adamw_win2 --optim_args reckless_steps=3:9 --max_steps 2 --report_to none --use_cpu"


@pytest.fixture
def script(tmp_path):
    """Writes a script; what lies beside it can be imported."""

    def write(text, name="script.py"):
        (tmp_path / "beside.py").write_text("value = 'beside'\n")
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def python(*arguments, **options):
    path = os.pathsep.join([str(Path(hf_winopt.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    line = [sys.executable, *map(str, arguments)]
    return subprocess.run(line, env=environment, capture_output=True, text=True, **options)


def run(*arguments, **options):
    return python("-m", "hf_winopt", "run", *arguments, **options)


def test_list_shows_every_optimizer(capsys):
    assert cli.main(["list"]) == 0
    heads, *lines = capsys.readouterr().out.splitlines()
    assert heads.split() == ["name", "class", "moved", "state", "papers", "when", "to", "use", "it"]
    for row, line in zip(registry.OPTIMIZERS.values(), lines, strict=False):
        assert line.split()[:2] == [row.name, row.cls.__name__] and line.endswith(row.when)
        moved, kept = map(float, line.split()[2:5]), map(float, line.split()[5:8])
        for level, bytes_moved, bytes_kept in zip(STATES, moved, kept, strict=True):
            assert bytes_moved == pytest.approx(row.at(level).bytes_per_param(weight_decay=False), abs=0.5)
            assert bytes_kept == pytest.approx(row.at(level).state_bytes_per_param(), abs=0.06)
        cited = line[heads.index("papers") : heads.index("when")].split()
        assert all(f"{number}  {paper}" in lines for number, paper in zip(cited, row.paper.split("; "), strict=True))
    others = lines[len(registry.OPTIMIZERS) + 2 :]
    for row, line in zip(registry.COMPOSED.values(), others, strict=False):
        assert line.split()[0] == row.name and row.base in line and line.endswith(row.when)
    assert max(map(len, lines)) <= 115


def test_list_as_json(capsys):
    assert cli.main(["list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == [*registry.OPTIMIZERS, *registry.COMPOSED]
    for name, row in registry.OPTIMIZERS.items():
        made = rows[name]
        assert (made["class"], made["fixed"], made["when"]) == (row.cls.__name__, row.fixed, row.when)
        assert made["bytes_per_param"] == row.bytes_per_param
    assert rows["lion_win"]["needs"] == "pytorch_optimizer" and rows["lion_win"]["state_bytes_per_param"] == 8


def test_version_and_help(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"hf-winopt {hf_winopt.__version__}\n"
    with pytest.raises(SystemExit, match="0"):
        cli.main([])
    text = capsys.readouterr().out
    assert all(name in text and what in text for name, what in cli.COMMANDS.items())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["dance"], "invalid choice: 'dance'"),
        (["list", "--yaml"], "unrecognized arguments: --yaml"),
        (["run"], "which script"),
        (["run", "-m"], "which module"),
        (["run", "--optim", "adan"], "--optim"),
        (["run", "no_such_script.py", "--help"], "no such script: no_such_script.py"),
    ],
)
def test_mistakes_exit_with_2(line, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(line)
    assert message in capsys.readouterr().err


def test_run_is_what_python_does(script, tmp_path):
    path = script(REPORT)
    line = [path, "--help", "--json", "-m", "list"]
    ours, theirs = run(*line), python(*line)
    assert ours.returncode == theirs.returncode == 0, ours.stderr
    assert ours.stdout == theirs.stdout
    assert json.loads(ours.stdout) == ["beside", [str(path), *line[1:]], str(tmp_path), "__main__", True]


def test_run_module_is_what_python_does(script, tmp_path):
    script(REPORT, "module_here.py")
    ours, theirs = (runner("-m", "module_here", "--json", "-m", "x", cwd=tmp_path) for runner in (run, python))
    assert ours.returncode == theirs.returncode == 0, ours.stderr
    assert ours.stdout == theirs.stdout


@pytest.mark.parametrize(("kind", "status"), [("error", 1), ("interrupt", -signal.SIGINT), ("exit", 1)])
def test_failures_are_the_scripts(kind, status, script):
    path = script(FAIL)
    ours, theirs = run(path, kind), python(path, kind)
    assert ours.returncode == theirs.returncode == status
    assert ours.stderr == theirs.stderr
    assert "in the script" in ours.stderr


def test_a_script_that_is_no_python(script):
    path = script("def f(:\n")
    ours, theirs = run(path), python(path)
    assert ours.returncode == theirs.returncode == 1
    assert ours.stderr == theirs.stderr


def test_an_unmodified_script_trains_with_our_names(script, tmp_path):
    line = [*TRAIN_LINE.split(), "--output_dir", tmp_path / "out"]
    done = run(script(TRAIN), *line)
    assert done.returncode == 0, done.stderr
    assert "TRAINED AdamW win2 (3.0, 9.0)" in done.stdout
    # The same without us: the script itself does not know the name.
    assert "invalid choice: 'adamw_win2'" in python(script(TRAIN), *line).stderr


def test_under_accelerate_launch(script, tmp_path):
    pytest.importorskip("accelerate")
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", "-m", "hf_winopt", "run"]
    done = python(*launch, script(TRAIN), *TRAIN_LINE.split(), "--output_dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "TRAINED AdamW win2 (3.0, 9.0)" in done.stdout


def test_list_into_a_pipe_that_nobody_reads():
    """As in `hf-winopt list | head -1`: no traceback."""
    code = "import os, sys; r, w = os.pipe(); os.close(r); os.dup2(w, 1); from hf_winopt import cli; cli.main(['list'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
