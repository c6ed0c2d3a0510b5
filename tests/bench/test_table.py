"""The table from figures that are written here."""

import copy

import pytest

from benchmarks import step_time
from hf_winopt import bench
from hf_winopt.bench import table

ON_A_GPU = {
    "median_ms": 0.5234,
    "ratio_fused": 1.0,
    "ratio_foreach": 0.5,
    "bytes_per_param": 28,
    "bytes_per_step": 28e8,
    "copy_bytes": 35e8,
    "gb_per_s": 5349.6,
    "share_of_copy": 0.8,
    "host_us": 812.3,
    "launches": 4,
    "copies": 1,
    "busy_ms": 0.5,
    "state_bytes": 8e8,
}
RESULT = {
    "shapes": "gpt2",
    "dtype": "bfloat16",
    "tensors": 148,
    "elements": 100_000_000,
    "rounds": 5,
    "copy_gb_per_s": 4012.3,
    "machine": {"cpu": "Some CPU", "threads": 8, "device": "Some GPU", "driver": "1.2.3", "torch": "2.9"},
    "rows": [
        {"name": "torch AdamW fused", "backend": "fused", **ON_A_GPU},
        {"name": "torch AdamW foreach", "backend": "foreach", **ON_A_GPU, "median_ms": 12.6},
        {"name": "adan", "backend": "eager", **ON_A_GPU, "launches": None, "host_us": None},
        {"name": "torch AdamW fused", "backend": "fused", **ON_A_GPU, "median_ms": 0.7234, "launches": 6},
        {"name": "torch AdamW foreach", "backend": "foreach", **ON_A_GPU, "median_ms": 14.6},
        {"name": "lamb", "backend": "eager", **ON_A_GPU},
    ],
}


def cells(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]


def test_the_whole_table():
    text = bench.report(RESULT)
    assert text.splitlines()[0] == (
        "gpt2, 100.0 M bfloat16 parameters in 148 tensors; Some GPU, Some CPU, 8 threads, driver 1.2.3, "
        "a copy moves 4012 GB/s; torch 2.9, median of 5 rounds"
    )
    heads, _, fused, foreach, adan, lamb = cells(text)
    assert heads == [column.head for column in table.COLUMNS]
    known = ["1.00", "0.50", "28", "2.80", "3.50", "5350", "80%", "812", "4", "1", "0.500", "800"]
    assert lamb == ["lamb", "eager", "float32", "0.523", *known]
    assert adan == ["adan", "eager", "float32", "0.523", *known[:7], "-", "-", *known[9:]]
    # torch's are medians over those beside each name
    assert fused == ["torch AdamW fused", "fused", "-", "0.623", *known[:8], "5", *known[9:]]
    assert foreach[:4] == ["torch AdamW foreach", "foreach", "-", "14"]
    assert len({len(line) for line in text.splitlines()[2:]}) == 1


def test_figures_of_before_there_was_more_than_time():
    old = copy.deepcopy(RESULT)
    del old["dtype"], old["copy_gb_per_s"], old["machine"]["driver"]
    old["rows"] = [{key: row[key] for key in list(row)[:5]} for row in old["rows"]]
    assert "float32" in bench.report(old)
    assert cells(bench.report(old))[-1] == ["lamb", "eager", "float32", "0.523", "1.00", "0.50", "28", *["-"] * 9]
    assert step_time.report(old, ["adan"]).splitlines()[2:] == [
        "| optimizer | backend | state | ms | x fused | x foreach | bytes/param |",
        "|---|---|---|---|---|---|---|",
        "| torch AdamW fused | fused | - | 0.623 | 1.00 | 0.50 | 28 |",
        "| torch AdamW foreach | foreach | - | 14 | 1.00 | 0.50 | 28 |",
        "| adan | eager | float32 | 0.523 | 1.00 | 0.50 | 28 |",
    ]


def test_what_was_not_measured():
    with pytest.raises(ValueError, match="not measured: adal; measured: adan, lamb"):
        bench.report(RESULT, ["adan", "adal"])
    with pytest.raises(ValueError, match="another benchmark"):
        bench.report({**RESULT, "rows": [{"name": "adan", "backend": "eager", "ratio_loop": 1.0}]})


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.01234, "0.0123"), (0.5, "0.500"), (9.999, "10.0"), (99.94, "99.9"), (99.96, "100"), (1234.5, "1234")],
)
def test_three_digits(value, text):
    assert table.three_digits(value) == text
