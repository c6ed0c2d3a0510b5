"""Says at the end how many cases there were; writes it to a file where `--tally` names one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hf_winopt.files import write_json
from hf_winopt.integrations.results import environment
from tests.fuzz.tally import CASES, total


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tally", type=Path, help="write the number of cases of each property to this file (JSON)")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):  # one of several processes: the first of them says it for all
        session.config.workeroutput["cases"] = {name: dict(outcomes) for name, outcomes in CASES.items()}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    for name, outcomes in getattr(node, "workeroutput", {}).get("cases", {}).items():
        CASES[name].update(outcomes)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if not CASES:
        return
    terminalreporter.section("cases")
    width = max(map(len, CASES))
    for name, outcomes in (*sorted(CASES.items()), ("all", total())):
        refused, trained = outcomes["refused"], outcomes["trained"]
        terminalreporter.write_line(f"{name:{width}} {refused + trained:7} {refused:7} refused {trained:7} trained")
    if path := config.getoption("--tally", None):
        write_json(path, report(len(terminalreporter.stats.get("failed", ())), config))


def report(failed: int, config: pytest.Config) -> dict[str, Any]:
    """The numbers of a whole run."""
    return {
        "cases": total().total(),
        "refused": total()["refused"],
        "trained": total()["trained"],
        "properties_failed": failed,
        "seed": config.getoption("--hypothesis-seed", None),
        "properties": {name: dict(sorted(outcomes.items())) for name, outcomes in sorted(CASES.items())},
        **environment("hypothesis"),
    }
