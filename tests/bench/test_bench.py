"""`hf-winopt bench`, run for real on the CPU, and what it refuses."""

import gc
import json
import math
import weakref

import pytest
import torch

import hf_winopt
from hf_winopt import bench, cli, files
from hf_winopt.bench import comparison, memory, plan

TOP = {"shapes", "dtype", "tensors", "elements", "rounds", "machine", "copy_gb_per_s", "rows"}
MACHINE = {"cpu", "cores", "threads", "device", "driver", "python", "torch", "triton", "transformers", "hf_winopt"}
TIMES = {"median_ms", "min_ms", "max_ms", "ratio_fused", "ratio_foreach"}
QUARTILES = {"ratio_fused_quartiles", "ratio_foreach_quartiles"}
TRAFFIC = {"bytes_per_param", "bytes_per_step", "copy_bytes", "gb_per_s", "share_of_copy", "state_bytes"}
ON_A_DEVICE = {"host_us", "launches", "copies", "busy_ms"}


@pytest.fixture
def line(tiny_model, monkeypatch):
    """A command that is quick."""
    monkeypatch.setattr(comparison, "SIZE", 1 << 20)
    return ["bench", "adamw_win", "adal", "--shapes", str(tiny_model), "--device", "cpu", "--rounds", "2"]


def mistake(line, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(line)
    return capsys.readouterr().err


@pytest.mark.parametrize("dtype", plan.DTYPES)
def test_a_run(line, dtype, tmp_path, capsys):
    path = tmp_path / "new" / "figures.json"
    assert cli.main([*line, "--backends", "eager", "--dtype", dtype, "--json", str(path)]) == 0
    printed = capsys.readouterr()
    assert [text.split(":")[0] for text in printed.err.splitlines()] == ["adamw_win eager", "adal eager"]

    result = json.loads(path.read_text())
    assert result.keys() == TOP and result["machine"].keys() == MACHINE
    assert (result["shapes"], result["dtype"], result["rounds"]) == ("tiny", dtype, 2)
    shapes = bench.shapes_of(line[line.index("--shapes") + 1])
    elements = sum(map(math.prod, shapes))
    assert (result["tensors"], result["elements"]) == (len(shapes), elements)
    assert [row["backend"] for row in result["rows"]] == 2 * [*bench.BASELINES, "eager"]
    size = plan.DTYPES[dtype].itemsize
    for row in result["rows"]:
        ours = set() if row["backend"] in bench.BASELINES else {"state"}
        assert row.keys() == {"name", "backend"} | ours | TIMES | QUARTILES | TRAFFIC | ON_A_DEVICE
        assert all(low <= row[key.removesuffix("_quartiles")] <= high for key in QUARTILES for low, high in [row[key]])
        assert all(row[key] > 0 for key in TIMES | TRAFFIC) and all(row[key] is None for key in ON_A_DEVICE)
        assert row["bytes_per_step"] == row["bytes_per_param"] * elements
        assert row["share_of_copy"] == pytest.approx(row["bytes_per_step"] / row["copy_bytes"])
    fused, _, win = result["rows"][:3]
    assert fused["bytes_per_param"] == 7 * size and fused["ratio_fused"] == 1
    assert win["bytes_per_param"] == 3 * size + 6 * 4
    assert win["state_bytes"] == 3 * 4 * elements + 4 * len(shapes)

    assert cli.main(["bench", "--report", str(path)]) == 0
    assert capsys.readouterr().out == printed.out
    assert cli.main(["bench", "adal", "--report", str(path)]) == 0
    assert "adamw_win" not in capsys.readouterr().out
    assert [entry.name for entry in path.parent.iterdir()] == ["figures.json"]


def test_state_is_freed_before_the_next(line, monkeypatch):
    made, alive = [], []

    def create(*arguments, **options):
        gc.collect()
        alive.append(sum(reference() is not None for reference in made))
        optimizer = hf_winopt.create_optimizer(*arguments, **options)
        made.append(weakref.ref(optimizer))
        return optimizer

    monkeypatch.setattr(comparison, "create_optimizer", create)
    assert cli.main([*line, "--backends", "eager"]) == 0
    assert alive == [0, 0]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError])
def test_what_stops_midway_writes_nothing(line, failure, tmp_path, monkeypatch):
    def create(name, *arguments, **options):
        if name == "adal":
            raise failure
        return hf_winopt.create_optimizer(name, *arguments, **options)

    path = tmp_path / "figures.json"
    path.write_text("what was there")
    monkeypatch.setattr(comparison, "create_optimizer", create)
    line = [*line, "--backends", "eager", "--json", str(path)]
    if failure is KeyboardInterrupt:
        assert cli.main(line) == 130
    else:
        with pytest.raises(failure):
            cli.main(line)
    assert path.read_text() == "what was there"


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    def replace(*_):
        raise KeyboardInterrupt

    path = tmp_path / "figures.json"
    path.write_text("what was there")
    monkeypatch.setattr(files.os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        bench.save(path, {"rows": []})
    assert [entry.read_text() for entry in tmp_path.iterdir()] == ["what was there"]


@pytest.mark.parametrize("dtype", plan.DTYPES)
def test_all_steps_leave_finite_parameters(tiny_model, dtype):
    made = bench.make_plan(["sgd_win", "adal"], str(tiny_model), dtype, device="cpu")
    params = comparison.parameters(made)
    optimizers = [torch.optim.AdamW(params, **comparison.OPTIONS, **{key: True}) for key in bench.BASELINES]
    optimizers += [hf_winopt.create_optimizer(name, params, **comparison.OPTIONS) for name in made.names]
    before = [p.detach().clone() for p in params]
    for _ in range(20):
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close([p.detach() for p in params], before, rtol=0.1, atol=0.01)


def test_default_backends(monkeypatch):
    assert bench.default_backends(torch.device("cpu")) == ("eager", "compile")
    monkeypatch.setattr(plan, "resolve", lambda backend, device: f"{backend} on {device}")
    assert bench.default_backends(torch.device("cuda")) == ("auto on cuda",)


def test_no_times_under_a_name_that_did_not_step(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match=r"backend 'triton' cannot be measured here: (?i:triton)"):
        bench.make_plan(backends=["triton"], device="cpu")


def test_a_plan_by_default():
    made = bench.make_plan(device="cpu", backends=["eager", "auto", "eager"])
    assert made.names == tuple(hf_winopt.OPTIMIZERS)
    assert (made.model, made.elements, made.backends) == ("bert-base", 109_483_778, ("eager", "compile"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["adamw_wim"], "unknown optimizer 'adamw_wim'; did you mean adamw_win"),
        (["--shapes", "gpt2-larg"], "unknown shapes 'gpt2-larg'; did you mean gpt2-large"),
        (["--backends", "eagre"], "unknown backend 'eagre'; did you mean eager?"),
        (["--device", "gpu"], "unknown device 'gpu'"),
        (["--device", "cuda:99"], "there is no device 'cuda:99' here; there is cpu"),
        (["--rounds", "0"], "rounds must be at least 1; got 0"),
        (["--dtype", "int8"], "invalid choice: 'int8'"),
        (["--report", "no_such.json"], "no_such.json"),
    ],
)
def test_mistakes(words, message, capsys):
    assert message in mistake(["bench", *words], capsys)


def test_other_types_from_python():
    with pytest.raises(ValueError, match="dtype must be float32 or bfloat16 or float16; got 'int8'"):
        bench.make_plan(dtype="int8")


@pytest.mark.parametrize(("text", "message"), [("{", "is no JSON"), ("[]", "holds no figures")])
def test_a_report_of_something_else(text, message, tmp_path, capsys):
    path = tmp_path / "figures.json"
    path.write_text(text)
    assert message in mistake(["bench", "--report", str(path)], capsys)


def test_no_place_for_the_figures(line, tmp_path, capsys):
    assert "is a folder" in mistake([*line, "--json", str(tmp_path)], capsys)


def test_what_does_not_fit(line, monkeypatch, capsys):
    made = bench.make_plan(["sgd_win", "adan_win2", "adamw_win"], "bert-base", device="cpu")
    needed = made.elements * (4 + 4 + 2 * 8 + 4 + 24)
    assert memory.needed_bytes(made) == needed
    monkeypatch.setattr(memory, "free_bytes", lambda device: needed)
    bench.check_memory(made)
    monkeypatch.setattr(memory, "free_bytes", lambda device: needed - 1)
    with pytest.raises(ValueError, match=r"bert-base in float32 needs 5.7 GB on cpu .* of adan_win2\), and 5.7 GB are"):
        bench.measure(made)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 10)
    assert "tiny in float32 needs" in mistake(line, capsys)
    monkeypatch.setattr(memory, "free_bytes", lambda device: None)
    bench.check_memory(made)


def test_free_memory_is_known_here():
    assert memory.free_bytes(torch.device("cpu")) > 1 << 20
