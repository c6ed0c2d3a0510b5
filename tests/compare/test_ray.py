"""A local Ray with two workers gives what one run after the other gives."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest

from hf_winopt.compare import pools
from tests.compare.conftest import but_for_times, compare

LINE = ["toy.py", "--curse", "fail:adan 0.001 2", "--optims", "adamw_torch,adan", "--lrs", "1e-3", "--threads", "1"]


def test_ray_gives_the_same(toy, monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    assert compare(*LINE, "--ray", "local", "--jobs", "2", "--out", "by_ray") == 0
    assert compare(*LINE, "--jobs", "1", "--out", "in_turn") == 0
    by_ray, in_turn = but_for_times(toy / "by_ray"), but_for_times(toy / "in_turn")
    assert len(by_ray[0]) == 6 and by_ray == in_turn


def test_without_ray_it_says_what_to_install(toy, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert compare(*LINE, "--ray", "auto", "--out", "out") == 2
    assert "pip install 'hf-winopt[ray]'" in capsys.readouterr().err


def test_a_task_that_ray_loses_is_a_failed_run(tmp_path):
    class Lost(Exception):
        pass

    def get(task):
        raise Lost

    others = {name: type(name, (Exception,), {}) for name in pools._LOST}
    pool = pools.RayPool.__new__(pools.RayPool)
    pool._closing = False
    pool._ray = SimpleNamespace(exceptions=SimpleNamespace(**{**others, "WorkerCrashedError": Lost}), get=get)
    pool._task = SimpleNamespace(remote=lambda job: None)
    lost = pool._execute(pools.Job(tmp_path, ("x.py",), {}, tmp_path, False))
    assert lost.state == "failed" and "Ray lost the task" in lost.reason
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "failed"


def test_a_folder_that_a_node_does_not_see_is_named(tmp_path):
    job = pools.Job(tmp_path / "gone" / "runs" / "adan" / "lr_1" / "seed_1", ("x.py",), {}, tmp_path, False)
    with pytest.raises(FileNotFoundError, match=r"gone is not there: --out must be on a file system that all nodes"):
        pools.execute(job)
