"""Programs: compiled once for a machine, kept on disk, loaded by every later process; and what can go wrong."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from hf_winopt.engine import disk, passes, programs
from hf_winopt.rules import Rule, coefficients

CPU = (torch.float32, torch.float32, torch.device("cpu"))
HYPER = {"lr": 0.1, "weight_decay": 0.1, "momentum": 0.9, "dampening": 0.0}
PLAIN = Rule(moments="momentum", decay="l2")
C = coefficients(PLAIN, HYPER, 1)

TRAIN = """
import torch
from hf_winopt import SGD

p = torch.nn.Parameter(torch.ones(30))
p.grad = torch.ones(30)
SGD([p], lr=0.1, weight_decay=0.1, backend="compile").step()
print(p[0].item())
"""


def trained(cache, **environment):
    """A step in a process of its own, with this folder for its programs."""
    env = {**os.environ, "HF_WINOPT_CACHE": str(cache), **environment}
    return subprocess.run([sys.executable, "-c", TRAIN], env=env, capture_output=True, text=True)


def run_of(rule=PLAIN):
    return programs._Run(passes.whole_step, rule, tuple(C))


def stepped(program):
    """The parameter after a step by a program: ones with gradients of one and no momentum yet."""
    z = torch.ones(40)
    program([torch.tensor(list(C.values())), z, torch.ones(40), torch.zeros(40)])
    return z


def test_a_later_process_compiles_nothing(tmp_path):
    first = trained(tmp_path)
    assert float(first.stdout) == pytest.approx(1 - 0.1 * 1.1)
    assert not first.stderr
    assert len(list(tmp_path.glob("*.pt2"))) == 1
    assert trained(tmp_path, CXX="/nonexistent").stdout == first.stdout


def test_a_damaged_file_is_made_anew(tmp_path, monkeypatch):
    whole = stepped(programs.program(passes.whole_step, PLAIN, tuple(C), CPU))
    name = programs.file_name(run_of(), CPU)
    content = (disk.folder() / name).read_bytes()
    monkeypatch.setenv("HF_WINOPT_CACHE", str(tmp_path))
    monkeypatch.setattr(programs, "_compile", lambda run, kind, path: path.write_bytes(content))
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    assert torch.equal(stepped(programs._ahead_of_time(run_of(), CPU)), whole)
    assert (tmp_path / name).read_bytes() == content


def test_without_a_compiler_it_is_said_what_would_be_right(tmp_path):
    failed = trained(tmp_path, CXX="/nonexistent")
    assert failed.returncode
    assert "needs a C++ compiler" in failed.stderr
    assert "backend='eager'" in failed.stderr
    assert not list(tmp_path.glob("*.pt2"))


def test_what_a_program_is_made_of_is_in_its_name(tmp_path, monkeypatch):
    """Another rule, type, torch, processor or formula is another file."""
    monkeypatch.setenv("HF_WINOPT_CACHE", str(tmp_path))
    monkeypatch.setattr(programs, "_compile", lambda run, kind, path: path.write_text(""))
    monkeypatch.setattr(programs, "_load", lambda path: path.name)
    names = {programs._ahead_of_time(run_of(), CPU), programs._ahead_of_time(run_of(Rule()), CPU)}
    names.add(programs._ahead_of_time(run_of(), (torch.bfloat16, *CPU[1:])))
    for of, attribute in ((torch, "__version__"), (disk, "processor"), (programs, "_sources")):
        with monkeypatch.context() as patch:
            patch.setattr(of, attribute, "other" if attribute == "__version__" else lambda: "other")
            names.add(programs._ahead_of_time(run_of(), CPU))
    assert len(names) == 6
    assert programs._ahead_of_time(run_of(), CPU) in names
    assert len(names) == len(list(tmp_path.glob("*.pt2")))


def test_one_process_makes_a_file_and_the_others_wait_for_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_WINOPT_CACHE", str(tmp_path))
    made, go_on = [], threading.Event()

    def make(path):
        made.append(path)
        go_on.wait(10)
        path.write_text("whole")

    threads = [threading.Thread(target=disk.kept, args=("thing", make)) for _ in range(3)]
    for thread in threads:
        thread.start()
    go_on.set()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert (tmp_path / "thing").read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["thing"]


def test_what_fails_half_way_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_WINOPT_CACHE", str(tmp_path))

    def make(path):
        path.write_text("half")
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        disk.kept("thing", make)
    assert not [path for path in tmp_path.iterdir() if "lock" not in path.name]


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HF_WINOPT_CACHE", str(tmp_path / "file" / "folder"))
    with pytest.warns(UserWarning, match="HF_WINOPT_CACHE"):
        path = disk.kept("thing", lambda path: path.write_text("whole"))
    assert path.read_text() == "whole"


def test_where_the_folder_is(monkeypatch):
    monkeypatch.setenv("HF_WINOPT_CACHE", "/own")
    assert disk.folder() == Path("/own")
    monkeypatch.delenv("HF_WINOPT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert disk.folder() == Path("/caches/hf_winopt")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert disk.folder() == Path.home() / ".cache" / "hf_winopt"


# what is compiled in each process, as for accelerators ------------------------------------------------------------


@pytest.fixture
def _traced_only(monkeypatch):
    """`torch.compile` traces, and leaves out the compiler behind it."""
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda run, options, **how: compile_(run, backend="eager", **how))


@pytest.mark.usefixtures("_traced_only")
def test_just_in_time_is_the_same_and_compiles_once():
    """One compilation for all sizes, and for parameters as for plain tensors."""
    program = programs.just_in_time(run_of())
    assert torch.equal(stepped(program), stepped(programs.program(passes.whole_step, PLAIN, tuple(C), CPU)))
    for size in (2, 41, 4096, 100_000):
        with torch.compiler.set_stance("fail_on_recompile"):
            program([torch.tensor(list(C.values())), *(torch.ones(size) for _ in range(3))])


@pytest.mark.usefixtures("_traced_only")
def test_just_in_time_has_more_rules_than_torch_compiles_of_one_function():
    """torch gives up after eight compilations of one function; each rule is a function of its own."""
    expected = stepped(functools.partial(run_of()))
    for _ in range(10):
        assert torch.equal(stepped(programs.just_in_time(run_of())), expected)
