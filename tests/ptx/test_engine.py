"""The engine's tests a third time: not on a GPU, not in the interpreter, but by the code that a GPU would be given."""

from __future__ import annotations

import re
from collections import defaultdict
from xml.etree import ElementTree

import pytest

from .processes import ROOT, run

LEFT_OUT = {
    "test_levels.py": "takes minutes to compile; every way to walk is taken in test_levels_walked.py too",
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
    """What pytest printed; and by file and test, what went wrong, which is nothing in one that passed."""
    report = tmp_path_factory.mktemp("third_run") / "report.xml"
    told = run("pytest", "-q", "-p", "tests.ptx.plugin", "-p", "no:cacheprovider", f"--junitxml={report}", *FILES)
    assert report.exists(), told.stdout + told.stderr
    wrong = defaultdict(dict)
    for case in ElementTree.parse(report).iter("testcase"):
        file = case.get("classname").replace(".", "/") + ".py"
        wrong[file][case.get("name")] = "\n".join(f"{kind.tag}: {kind.text}"[-2000:] for kind in case)
    return told.stdout, wrong


@pytest.mark.parametrize("file", FILES)
def test_all_of_a_file_ran_and_passed(file, third_run):
    printed, wrong = third_run
    assert wrong[file], printed[-5000:]
    failed = [f"{name}\n{problems}" for name, problems in wrong[file].items() if problems]
    assert not failed, f"{len(failed)} of {len(wrong[file])}, the first:\n{failed[0]}"


def test_they_ran_on_the_device_of_this_folder(third_run):
    """A step is two launches and more, and most tests take many."""
    printed, wrong = third_run
    launches = int(re.search(r"^launches: (\d+)$", printed, re.MULTILINE)[1])
    assert launches > 10 * sum(map(len, wrong.values())) > 1000


def test_processes_that_share_parameters():
    told = run("tests.ptx.sharded")
    assert told.returncode == 0, told.stderr[-3000:]
