"""The figures of small states: our own are what is measured now, and the docs show them all."""

import json
from pathlib import Path

import pytest

from benchmarks import state_encodings

ROOT = Path(__file__).parents[2]
KEPT = json.loads((ROOT / "benchmarks" / "results" / "state_encodings.json").read_text())
ROWS = {row["name"]: row for row in KEPT["rows"]}


def test_the_docs_show_them():
    docs = (ROOT / "docs" / "state.md").read_text(encoding="utf-8")
    shown = docs.partition("<!-- encodings -->")[2].partition("<!-- /encodings -->")[0]
    assert shown.strip() == state_encodings.table(KEPT).strip()


def test_ours_are_as_kept():
    measured = state_encodings.measure(state_encodings.OURS)
    assert not measured["left_out"] and len(measured["rows"]) == 3
    for row in measured["rows"]:
        kept = ROWS[row["name"]]
        assert [row[key] for key in state_encodings.HEADS] == pytest.approx(
            [kept[key] for key in state_encodings.HEADS], rel=0.03
        )


def test_ours_are_as_they_should_be():
    for name in state_encodings.OURS:
        row = ROWS[name]
        assert row["early"] < state_encodings.BOUND and row["late"] < state_encodings.BOUND and row["beyond"] == 0
        assert row["silence"] == pytest.approx(1, abs=0.03) and row["tiny"] == pytest.approx(1, abs=0.01)


def test_what_is_restated_as_its_package():
    """torchao has the same map, scales and rounding as the nearest of bitsandbytes' codes."""
    torchao, restated = ROWS["torchao AdamW8bit"], ROWS["bitsandbytes' codes, to the nearest"]
    assert [torchao[key] for key in ("early", "beyond", "late", "silence")] == pytest.approx(
        [restated[key] for key in ("early", "beyond", "late", "silence")], rel=0.02
    )


def test_a_package_that_is_missing_is_left_out():
    result = state_encodings.measure({"none": ("no_such_package", state_encodings.of("no_such_package", "AdamW"))})
    assert result["rows"] == [] and "Left out: none: PackageNotFoundError." in state_encodings.table(result)


def test_the_report_prints_the_table(monkeypatch, capsys):
    path = ROOT / "benchmarks" / "results" / "state_encodings.json"
    monkeypatch.setattr("sys.argv", ["state_encodings", "--report", str(path)])
    state_encodings.main()
    assert capsys.readouterr().out.strip() == state_encodings.table(KEPT).strip()
