"""The loops compute what ours compute, so that the two can be compared."""

import json

import pytest
import torch

from benchmarks import plain_loops
from hf_winopt import bench, create_optimizer


@pytest.mark.parametrize("name", plain_loops.LOOPS)
def test_loops_compute_the_same(name):
    start = [torch.randn(7, 5), torch.randn(5)]
    ours, theirs = ([torch.nn.Parameter(p.clone()) for p in start] for _ in range(2))
    optimizers = [
        create_optimizer(name, ours, lr=1e-2, weight_decay=0.1),
        plain_loops.LOOPS[name](theirs, lr=1e-2, weight_decay=0.1),
    ]
    for _ in range(5):
        for mine, other in zip(ours, theirs):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_run(tiny_model, tmp_path, monkeypatch, capsys):
    path = tmp_path / "figures.json"
    line = ["plain_loops", "--shapes", str(tiny_model), "--backends", "eager", "--device", "cpu", "--rounds", "2"]
    monkeypatch.setattr("sys.argv", [*line, "--json", str(path)])
    plain_loops.main()
    printed = capsys.readouterr().out
    result = bench.load(path)
    assert [(row["name"], row["backend"]) for row in result["rows"]] == [("adamw_win", "eager"), ("adan", "eager")]
    assert all(row["ratio_loop"] > 0 and row["loop_ms"] > 0 for row in json.loads(path.read_text())["rows"])
    monkeypatch.setattr("sys.argv", ["plain_loops", "--report", str(path)])
    plain_loops.main()
    assert capsys.readouterr().out == printed
