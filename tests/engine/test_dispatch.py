"""What Triton needs of a machine is asked before it is used; without it the eager engine steps, and says why."""

import shutil
import sysconfig

import pytest
import torch

from hf_winopt.engine import resolve, triton_lacks

pytest.importorskip("triton")


@pytest.fixture(autouse=True)
def _asked_anew(monkeypatch):
    monkeypatch.setenv("CC", "cc")
    triton_lacks.cache_clear()
    yield
    triton_lacks.cache_clear()


def test_a_machine_with_all_of_it(tmp_path, monkeypatch):
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(sysconfig, "get_path", lambda *asked: str(tmp_path))
    assert triton_lacks() is None
    assert resolve("auto", torch.device("cuda")) == "triton" and resolve("auto", torch.device("cpu")) == "eager"


def test_without_the_headers_of_python(tmp_path, monkeypatch):
    """Triton compiles a launcher against them at the first launch, when state has been started already."""
    monkeypatch.setattr(sysconfig, "get_path", lambda *asked: str(tmp_path))
    assert f"no Python.h in {tmp_path}" in triton_lacks()
    assert resolve("auto", torch.device("cuda")) == "eager"


def test_without_a_compiler(monkeypatch):
    monkeypatch.delenv("CC")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "there is none (install gcc" in triton_lacks()
    assert resolve("auto", torch.device("cuda")) == "eager"
