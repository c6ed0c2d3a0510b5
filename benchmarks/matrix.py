"""The integration's tests on several versions of torch and transformers, each in a virtual environment of its own.

    python -m benchmarks.matrix [--json FILE] [--jobs N] [--only NAME ...]
    python -m benchmarks.matrix --report FILE

An environment is made by pip under `.matrix`, of what `pyproject.toml` asks for, and kept for the next run. A
combination that pip cannot install, or that cannot be imported, stands in the table as just that.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from hf_winopt.bench.table import markdown
from hf_winopt.files import write_json

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENTS = ROOT / ".matrix"
LIMIT = 3600
"""Seconds for one call of pip or pytest."""

PINNED = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE))

SUITES = {
    "integration": "tests/integrations/test_versions.py",
    "SFTTrainer": "tests/integrations/test_sft.py",
    "LoRA": "tests/integrations/test_lora.py",
    "Lightning": "tests/integrations/test_lightning.py",
}
"""Head of a column -> what is run for it."""

SHOWN = ("python", "torch", "transformers", "accelerate", "trl", "peft", "lightning")

VERSIONS = """
import json, platform
from importlib.metadata import distributions
versions = {each.metadata["Name"].lower(): each.version for each in distributions()}
print(json.dumps({"python": platform.python_version(), **dict(sorted(versions.items()))}))
"""

Result = dict[str, Any]


@dataclass(frozen=True)
class Combination:
    """What is asked of pip, which chooses the rest; `others` where it would choose what does not work together.

    `python` is the version of Python, as in the name of its command; that of this process where none is named.
    """

    torch: str
    transformers: str
    others: tuple[str, ...] = ()
    python: str = ""

    @property
    def asked(self) -> tuple[str, str]:
        return self.torch, self.transformers

    @property
    def name(self) -> str:
        return f"torch-{self.torch}-transformers-{self.transformers}"

    @property
    def folder(self) -> Path:
        return ENVIRONMENTS / self.name

    @property
    def interpreter(self) -> Path:
        return self.folder / "bin" / "python"


# the interpreter of older Tritons takes arrays of one element for numbers, which NumPy has ended in 2.4
OLDER_NUMPY = ("numpy<2.4",)
COMBINATIONS = (
    Combination("2.15.0", "5.24.0", python="3.13"),
    Combination(PINNED["torch"], PINNED["transformers"]),
    Combination(PINNED["torch"], "5.0.0"),
    Combination(PINNED["torch"], "4.57.6"),
    Combination("2.11.0", "5.17.0", OLDER_NUMPY, "3.12"),
    Combination("2.6.0", PINNED["transformers"], OLDER_NUMPY),
    Combination("2.6.0", "4.57.6", OLDER_NUMPY, "3.10"),
)


class UnusableError(Exception):
    """A combination cannot be installed, or not be imported; the message says why."""


def carry_out(combination: Combination) -> Result:
    """What came of one combination."""
    result: Result = {"torch": combination.torch, "transformers": combination.transformers}
    try:
        prepare(combination)
        versions = json.loads(run(combination, "-c", VERSIONS))
    except UnusableError as reason:
        return {**result, "unusable": str(reason)}
    suites = {suite: tested(combination, path) for suite, path in SUITES.items()}
    return {**result, "versions": versions, "suites": suites}


def prepare(combination: Combination) -> None:
    """Make the environment, unless it is there with all that is wanted of it.

    Raises:
        UnusableError: pip or the import failed.
    """
    pins = [f"torch=={combination.torch}", f"transformers=={combination.transformers}", *combination.others]
    wanted = "\n".join([*pins, (ROOT / "pyproject.toml").read_text(encoding="utf-8")])
    ready = combination.folder / "ready.txt"
    if not ready.exists() or ready.read_text(encoding="utf-8") != wanted:
        if not combination.interpreter.exists():
            subprocess.run([_base(combination), "-m", "venv", combination.folder], check=True)
        for what in (pins[:1], [*pins, "--editable", ".[matrix]"]):  # torch decides what else is fetched
            run(combination, "-m", "pip", "install", "--quiet", *what)
        ready.write_text(wanted, encoding="utf-8")
    run(combination, "-c", "from transformers import BertForSequenceClassification, Trainer")


def _base(combination: Combination) -> str:
    """The interpreter that makes the environment."""
    if not combination.python:
        return sys.executable
    found = shutil.which(f"python{combination.python}")
    if found is None:
        raise UnusableError(f"there is no python{combination.python} on the PATH")
    return found


def run(combination: Combination, *arguments: str) -> str:
    """What Python prints in the environment.

    Raises:
        UnusableError: it failed; with the last error that it printed.
    """
    command = [combination.interpreter, *arguments]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        raise UnusableError(f"not done after {LIMIT} s: {' '.join(arguments)}") from None
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line.lower()]
        raise UnusableError(errors[-1] if errors else f"exit status {done.returncode}")
    return done.stdout


def tested(combination: Combination, path: str) -> Result:
    """How many tests of a file passed, failed and were skipped; those that did not pass by name."""
    report = combination.folder / f"{Path(path).stem}.xml"
    report.unlink(missing_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [combination.interpreter, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", path]
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return {"failed": 1, "others": [f"{path}: not done after {LIMIT} s"]}
    report.with_suffix(".log").write_text(done.stdout + done.stderr, encoding="utf-8")
    print(f"{combination.name}, {path}: {done.stdout.strip().rpartition(chr(10))[2]}", flush=True)
    outcomes = list(read(report)) if report.exists() else [("failed", path, "pytest left no report")]
    others = [f"{name} {outcome}: {why}" for outcome, name, why in outcomes if outcome != "passed"]
    return {**Counter(outcome for outcome, _, _ in outcomes), "others": others}


def read(report: Path) -> Iterator[tuple[str, str, str]]:
    """Outcome, name and reason of each test in a report of pytest."""
    outcomes = {"failure": "failed", "error": "failed", "skipped": "skipped"}
    for case in ElementTree.parse(report).iter("testcase"):
        marks = [mark for mark in case if mark.tag in outcomes]
        why = (marks[0].get("message") or "").partition("\n")[0] if marks else ""
        yield outcomes[marks[0].tag] if marks else "passed", case.get("name", ""), why


def written_before(path: Path) -> dict[Combination, Result]:
    """What a file says of each combination; nothing where there is none."""
    found = json.loads(path.read_text(encoding="utf-8"))["combinations"] if path.exists() else []
    known = {(result["torch"], result["transformers"]): result for result in found}
    return {each: known[each.asked] for each in COMBINATIONS if each.asked in known}


def table(results: Sequence[Result]) -> str:
    """A row for each combination; below, a line for each test that did not pass, and for what could not be tested."""
    rows, others = [], []
    for result in results:
        versions, suites = result.get("versions", result), result.get("suites", {})
        rows.append([versions.get(name, "-") for name in SHOWN] + [_counts(suites.get(suite)) for suite in SUITES])
        others += [
            f"- torch {result['torch']}, transformers {result['transformers']}: {line}" for line in _said(result)
        ]
    return "\n".join([markdown([*SHOWN, *SUITES], rows), *(["", *others] if others else [])])


def _said(result: Result) -> list[str]:
    """What the numbers do not say."""
    if "unusable" in result:
        return [result["unusable"]]
    return [line for suite in result["suites"].values() for line in suite["others"]]


def _counts(outcomes: Mapping[str, Any] | None) -> str:
    """As "12", or "11, 1 failed"; "-" where nothing was run."""
    if outcomes is None:
        return "-"
    more = [f"{outcomes[kind]} {kind}" for kind in ("failed", "skipped") if kind in outcomes]
    return ", ".join([str(outcomes.get("passed", 0)), *more])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write there what came of it, after each combination")
    parser.add_argument("--jobs", type=int, default=1, help="combinations side by side (default: 1)")
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        choices=[each.name for each in COMBINATIONS],
        help="run these; what the file says of the others stays",
    )
    parser.add_argument("--report", type=Path, help="only print the table of what was written before")
    arguments = parser.parse_args(argv)
    if arguments.report:
        print(table(json.loads(arguments.report.read_text(encoding="utf-8"))["combinations"]))
        return
    chosen = [each for each in COMBINATIONS if arguments.only is None or each.name in arguments.only]
    results = written_before(arguments.json) if arguments.only and arguments.json else {}
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for combination, result in zip(chosen, pool.map(carry_out, chosen)):
            results[combination] = result
            done = [results[each] for each in COMBINATIONS if each in results]
            if arguments.json:
                write_json(
                    arguments.json, {"combinations": done, "platform": f"{platform.system()} {platform.machine()}"}
                )
    print(table(done))


if __name__ == "__main__":
    main()
