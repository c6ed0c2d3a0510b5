"""The README's tables are what the commands beside them print."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path

import pytest

from benchmarks import (
    adamw_paper,
    around_cost,
    bf16_params,
    first_step,
    hessian_cost,
    kill_resume,
    matrix,
    plain_loops,
    sharded_memory,
    sharded_step,
    soak,
    state_quality,
    step_time,
    traffic,
    transformer_xl,
)
from hf_winopt import OPTIMIZERS, cli
from hf_winopt.compare import report
from hf_winopt.rules import STATES
from recipes.glue import side_by_side

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = ROOT / "benchmarks" / "results"


def test_the_table_of_names():
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        cli.main(["list"])
    assert f"```\n{printed.getvalue().strip()}\n```" in README


def test_the_table_of_bf16():
    rows = json.loads((RESULTS / "bf16_params.json").read_text())["final_loss"]
    assert bf16_params.table(rows) in README


def test_the_table_of_step_times():
    command = re.search(r"python -m benchmarks.step_time --report \S+step_time.json --names ([\w ]+)`", README)
    assert command
    result = json.loads((RESULTS / "step_time.json").read_text())
    assert step_time.report(result, command[1].split()).strip() in README


def test_the_table_of_versions():
    results = json.loads((RESULTS / "matrix.json").read_text())["combinations"]
    assert matrix.table(results) in README
    run = [(result["torch"], result["transformers"]) for result in results]
    assert run == [(each.torch, each.transformers) for each in matrix.COMBINATIONS]  # the pinned ones among them


def test_the_table_of_the_comparison():
    folder = RESULTS / "compare_cola_minilm"
    summary = json.loads((folder / "summary.json").read_text())
    assert report.results_table(summary) in README
    assert (folder / "report.md").read_text() == report.write(summary)


def test_the_tables_of_the_transformer_xl():
    readme = (ROOT / "recipes" / "transformer_xl" / "README.md").read_text(encoding="utf-8")
    assert transformer_xl.table(json.loads((RESULTS / "transformer_xl.json").read_text())["rows"]) in readme
    (alone,) = json.loads((RESULTS / "transformer_xl_base_20_steps.json").read_text())["rows"]
    assert f"{alone['ours']['peak_gib']:.1f} GiB" in readme and alone["steps"] == 18 and alone["batch"] == 60
    summary = json.loads((RESULTS / "compare_transformer_xl" / "summary.json").read_text())
    assert report.results_table(summary) in readme and report.cost_table(summary) in readme
    assert (RESULTS / "compare_transformer_xl" / "report.md").read_text() == report.write(summary)


def test_the_tables_of_the_vit():
    image_loading = pytest.importorskip("benchmarks.image_loading")  # which needs Kornia
    readme = (ROOT / "recipes" / "vit" / "README.md").read_text(encoding="utf-8")
    assert image_loading.table(json.loads((RESULTS / "image_loading.json").read_text())) in readme
    summary = json.loads((RESULTS / "compare_cifar10" / "summary.json").read_text())
    assert report.results_table(summary).strip() in readme and report.cost_table(summary).strip() in readme
    assert (RESULTS / "compare_cifar10" / "report.md").read_text() == report.write(summary)


PERFORMANCE = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")


def test_the_table_of_bytes():
    rows = json.loads((RESULTS / "traffic.json").read_text())["rows"]
    assert traffic.table(rows) in PERFORMANCE


def test_the_tables_of_times():
    assert (
        step_time.report(json.loads((RESULTS / "step_time.json").read_text()), list(OPTIMIZERS)).strip() in PERFORMANCE
    )
    for file in ("step_time_levels.json", "step_time_levels_again.json"):
        assert step_time.report(json.loads((RESULTS / file).read_text())).strip() in PERFORMANCE
    assert first_step.table(json.loads((RESULTS / "first_step.json").read_text())["rows"]) in PERFORMANCE
    assert plain_loops.report(json.loads((RESULTS / "plain_loops.json").read_text())).strip() in PERFORMANCE
    for row in json.loads((RESULTS / "host_time.json").read_text())["rows"]:
        assert f"| {row['name']} | {row['host_us']:.0f} | " in PERFORMANCE


def test_the_tables_of_win_around_others():
    page = (ROOT / "docs" / "around.md").read_text(encoding="utf-8")
    assert around_cost.table(json.loads((RESULTS / "around_cost.json").read_text())) in page
    for folder in ("muon_cifar10", "muon_gpt2"):
        written = (RESULTS / folder / "report.md").read_text(encoding="utf-8")
        assert written == report.write(json.loads((RESULTS / folder / "summary.json").read_text()))
        assert _table(written) in page


def _table(written):
    """That of the results, in a report."""
    return written.split("## At equal steps\n\n")[1].split("\n\n")[0]


DISTRIBUTED = (ROOT / "docs" / "distributed.md").read_text(encoding="utf-8")


def test_the_table_of_sharded_steps():
    assert sharded_step.table(json.loads((RESULTS / "sharded_step.json").read_text())) in DISTRIBUTED


def test_the_tables_of_memory():
    result = json.loads((RESULTS / "sharded_memory.json").read_text())
    assert all(sharded_memory.table(result, level) in DISTRIBUTED for level in STATES)
    assert sharded_memory.by_size() in DISTRIBUTED
    for row in result["rows"]:
        right = sharded_memory.formula(row["name"], row["dtype"], row["processes"], row["level"])
        assert row["measured"] == pytest.approx(right, rel=1e-3)


def test_the_table_of_what_levels_cost_in_quality():
    assert state_quality.table() in (ROOT / "docs" / "state.md").read_text(encoding="utf-8")


def test_every_launch_configuration_is_described():
    for path in (ROOT / "recipes" / "accelerate").glob("*.yaml"):
        assert f"recipes/accelerate/{path.name}" in DISTRIBUTED


def test_the_table_of_the_kills():
    result = json.loads((RESULTS / "kill_resume.json").read_text())
    assert kill_resume.table(result) in (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert result["failures"] == [] and result["counts"]["SIGKILL"] + result["counts"]["SIGTERM"] >= 100


def test_the_table_of_the_soak():
    result = json.loads((RESULTS / "soak.json").read_text())
    assert soak.table(result) in (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")


ANALYSIS = (ROOT / "docs" / "analysis.md").read_text(encoding="utf-8")


def test_the_table_of_products_with_the_hessian():
    assert hessian_cost.table(json.loads((RESULTS / "hessian_cost.json").read_text())["rows"]) in ANALYSIS


def test_the_spectrum_of_a_pretrained_model():
    result = json.loads((RESULTS / "hessian_minilm_cola.json").read_text())
    top = ", ".join(f"{value:.4g}" for value in result["top_eigenvalues"][:5])
    singular = sum(w for value, w in zip(result["eigenvalues"], result["weights"]) if abs(value) <= 1)
    minutes, seconds = divmod(round(result["seconds"]), 60)
    for line in (
        f"that took {minutes} min {seconds} s",
        f"{result['dim']} parameters, {result['examples']} examples of validation",
        f"largest eigenvalues   {top}",
        f"trace                 {result['trace']:.4g} (standard error {result['trace_error']:.2g})",
        f"eigenvalues in [0, 1] {100 * result['share_in_0_1']:.4g} %",
        f"within [-1, 1]        {100 * singular:.4g} %",
        *(f"err {term['per_dimension']:.4g} per dimension" for term in result["generalization"].values()),
    ):
        assert line in ANALYSIS
    errors = [error / value for error, value in zip(result["top_errors"], result["top_eigenvalues"])]
    assert max(errors[:5]) <= 1.01e-4 and errors[9] == pytest.approx(0.06, abs=0.005)


def test_the_small_table_of_the_adamw_paper():
    result = json.loads((RESULTS / "adamw_paper.json").read_text())
    assert adamw_paper.table(result) in ANALYSIS and adamw_paper.differences(result) in ANALYSIS
    below = sorted(round(100 * row["share_negative"]) for row in result["rows"])
    assert f"from {below[0]} % to {below[-1]} %" in ANALYSIS and len(below) == 24
    assert min(row["singular_in_0_1"] for row in result["rows"]) > 0.99


def test_the_table_of_the_two_runs_on_cola():
    glue = ROOT / "recipes" / "glue"
    runs = {
        path.stem: json.loads(path.read_text()) for path in sorted((glue / "results" / "cola_minilm").glob("*.json"))
    }
    assert f"```\n{side_by_side.table(runs)}\n```" in (glue / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/analysis.md",
        "docs/math.md",
        "docs/performance.md",
        "docs/compare.md",
        "docs/distributed.md",
        "docs/hub.md",
        "docs/reliability.md",
        "recipes/glue/README.md",
        "recipes/transformer_xl/README.md",
    ],
)
def test_links_lead_somewhere(page):
    path = ROOT / page
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target
