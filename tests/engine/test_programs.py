"""Programs: compiled once for a machine, kept on disk, loaded by every later process; and what can go wrong."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hf_winopt.engine import beside, disk, machine_code, passes, ready
from hf_winopt.engine.cpp import library
from hf_winopt.engine.programs import Request, Run
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


def request(rule=PLAIN, kind=CPU):
    return Request(passes.whole_step, rule, tuple(C), kind)


def stepped(program):
    """The parameter after a step by a program: ones with gradients of one and no momentum yet."""
    z = torch.ones(40)
    program([torch.tensor(list(C.values())), z, torch.ones(40), torch.zeros(40)])
    return z


def test_a_later_process_compiles_nothing(tmp_path):
    first = trained(tmp_path)
    assert float(first.stdout) == pytest.approx(1 - 0.1 * 1.1)
    assert "Warning" not in first.stderr  # some builds of torch have something to say of CUDA or of the linker
    assert len(list(tmp_path.glob("*.pt2"))) == 1
    assert trained(tmp_path, CXX="/nonexistent").stdout == first.stdout


def test_a_damaged_file_is_made_anew(tmp_path, monkeypatch):
    whole = stepped(*ready.programs([request()]))
    name = machine_code.file_name(request())
    content = (disk.folder() / name).read_bytes()
    monkeypatch.setenv("HF_WINOPT_CACHE", str(tmp_path))
    monkeypatch.setattr(machine_code, "_compile", lambda request, path: path.write_bytes(content))
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    assert torch.equal(stepped(machine_code.ahead_of_time(request())), whole)
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
    monkeypatch.setattr(machine_code, "_compile", lambda request, path: path.write_text(""))
    monkeypatch.setattr(machine_code, "_load", lambda path: path.name)
    monkeypatch.setattr(library, "Library", lambda path: path.name)
    names = {machine_code.ahead_of_time(request()), machine_code.ahead_of_time(request(Rule()))}
    names.add(machine_code.ahead_of_time(request(kind=(torch.bfloat16, *CPU[1:]))))
    for of, attribute in ((torch, "__version__"), (disk, "processor"), (machine_code, "_sources")):
        with monkeypatch.context() as patch:
            patch.setattr(of, attribute, "other" if attribute == "__version__" else lambda: "other")
            names.add(machine_code.ahead_of_time(request()))
    assert len(names) == 6
    assert machine_code.ahead_of_time(request()) in names
    assert names == {file.name for file in tmp_path.iterdir() if not file.name.startswith(".")}


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


def test_a_folder_that_is_full_is_done_without(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_WINOPT_CACHE", str(tmp_path))

    def full(source, target):
        Path(target).write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(disk.shutil, "copyfile", full)
    with pytest.warns(UserWarning, match="No space left on device"):
        path = disk.kept("thing", lambda path: path.write_text("whole"))
    assert path.read_text() == "whole" and tmp_path not in path.parents
    assert not [path for path in tmp_path.iterdir() if "lock" not in path.name]


def test_where_the_folder_is(monkeypatch):
    monkeypatch.setenv("HF_WINOPT_CACHE", "/own")
    assert disk.folder() == Path("/own")
    monkeypatch.delenv("HF_WINOPT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert disk.folder() == Path("/caches/hf_winopt")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert disk.folder() == Path.home() / ".cache" / "hf_winopt"


# a second process that compiles -----------------------------------------------------------------------------------

BOTH = [request(), request(replace(PLAIN, moments="nesterov"))]


def test_another_process_compiles_all_but_the_first(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_WINOPT_CACHE", str(tmp_path))
    monkeypatch.setattr(beside, "_can_start", lambda: True)
    monkeypatch.setattr(sys, "path", [*sys.path, "", tmp_path])  # a notebook's place, and one that is no str
    with beside.compiled_beside(BOTH) as process:
        process.wait()
    assert [disk.has(machine_code.file_name(each)) for each in BOTH] == [False, True]
    monkeypatch.setattr(machine_code, "_compile", lambda *_: pytest.fail("compiled once more"))
    z = stepped(machine_code.ahead_of_time(BOTH[1]))
    torch.testing.assert_close(z, torch.full((40,), 1 - 0.1 * (1.1 + 0.9 * 1.1)))


@pytest.fixture
def started(tmp_path, monkeypatch):
    """What other processes were started for, in turn; they wait until they are ended."""
    seen = []

    def start(requests):
        process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
        seen.append((requests, process))
        return process

    monkeypatch.setenv("HF_WINOPT_CACHE", str(tmp_path))
    monkeypatch.setattr(beside, "_can_start", lambda: True)
    monkeypatch.setattr(beside, "_start", start)
    return seen


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_there_is_one_such_process_of_a_machine_and_nobody_waits_for_it(error, started):
    with contextlib.suppress(error or ()), beside.compiled_beside(BOTH):
        with beside.compiled_beside(BOTH):  # as another process of the same training would
            pass
        if error:
            raise error
    ((requests, process),) = started
    assert requests == BOTH[1:]
    assert process.returncode is not None


def test_there_is_none_where_it_would_not_help(started, monkeypatch):
    for requests in ([], BOTH[:1]):
        with beside.compiled_beside(requests):
            pass
    (disk.folder() / machine_code.file_name(BOTH[0])).write_text("")
    with beside.compiled_beside(BOTH):
        pass
    monkeypatch.setattr(beside, "_can_start", lambda: False)
    with beside.compiled_beside([*BOTH, request(Rule())]):
        pass
    assert not started


def test_a_python_that_does_not_start_costs_nothing_but_time(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_WINOPT_CACHE", str(tmp_path))
    monkeypatch.setattr(beside, "_can_start", lambda: True)
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    with beside.compiled_beside(BOTH):
        pass


# what is compiled in each process, as for accelerators ------------------------------------------------------------


@pytest.fixture
def _traced_only(monkeypatch):
    """`torch.compile` traces, and leaves out the compiler behind it."""
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda run, options, **how: compile_(run, backend="eager", **how))


@pytest.mark.usefixtures("_traced_only")
def test_just_in_time_is_the_same_and_compiles_once():
    """One compilation for all sizes, and for parameters as for plain tensors."""
    program = ready.just_in_time(request())
    assert torch.equal(stepped(program), stepped(*ready.programs([request()])))
    for size in (2, 41, 4096, 100_000):
        with torch.compiler.set_stance("fail_on_recompile"):
            program([torch.tensor(list(C.values())), *(torch.ones(size) for _ in range(3))])


@pytest.mark.usefixtures("_traced_only")
def test_just_in_time_has_more_rules_than_torch_compiles_of_one_function():
    """torch gives up after eight compilations of one function; each rule is a function of its own."""
    expected = stepped(Run(request()))
    for _ in range(10):
        assert torch.equal(stepped(ready.just_in_time(request())), expected)
