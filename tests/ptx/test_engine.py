"""The engine's tests a third time: not on a GPU, not in the interpreter, but by the code that a GPU would be given."""

from __future__ import annotations

import re
from collections import defaultdict
from xml.etree import ElementTree

import pytest

from .processes import ROOT, run

LEFT_OUT = {
    "test_machine_code.py": "reads what is compiled, in processes of its own, and launches nothing",
    "test_on_a_gpu.py": "is about a real device: graphs, streams, what waits, tensors of gigabytes",
}
ENGINE = sorted((ROOT / "tests/engine/triton").glob("test_*.py"))
FILES = [
    *(path.relative_to(ROOT).as_posix() for path in ENGINE if path.name not in LEFT_OUT),
    "tests/optim/test_amp.py",
    "tests/optim/test_skip_nonfinite.py",
    "tests/optim/test_descends.py",
    "tests/ptx/planted.py",
]


@pytest.fixture(scope="module")
def third_run(tmp_path_factory):
    """What pytest printed, and of each file the tests and what became of them: nothing if they passed."""
    report = tmp_path_factory.mktemp("third_run") / "report.xml"
    told = run("pytest", "-q", "-p", "tests.ptx.plugin", "-p", "no:cacheprovider", f"--junitxml={report}", *FILES)
    assert report.exists(), told.stdout + told.stderr
    outcomes = defaultdict(dict)
    for case in ElementTree.parse(report).iter("testcase"):
        problems = [f"{kind.tag}: {kind.get('message')}\n{kind.text}" for kind in case if kind.tag != "properties"]
        outcomes[case.get("classname").replace(".", "/") + ".py"][case.get("name")] = "\n".join(problems)
    return told.stdout, outcomes


@pytest.mark.parametrize("file", FILES)
def test_of_each_file_all_tests_ran_and_passed(file, third_run):
    printed, outcomes = third_run
    assert outcomes[file], printed
    failed = {name: problems for name, problems in outcomes[file].items() if problems}
    assert not failed, "\n".join(f"{name}: {problems}" for name, problems in failed.items())


def test_it_was_the_device_of_this_folder(third_run):
    """Every test of the engine steps some parameters; a step is two launches or more."""
    printed, outcomes = third_run
    launches = int(re.search(r"^launches: (\d+)$", printed, re.MULTILINE)[1])
    assert launches > 10 * sum(map(len, outcomes.values())) > 1000
