"""The driver of a device where the system shows no module of it: by NVIDIA's own command, else not known."""

import sys

import pytest

from hf_winopt.bench import machine


@pytest.mark.skipif(sys.platform == "win32", reason="the command is a shell script here")
def test_the_driver_by_command(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine._driver_by_command() is None
    command = tmp_path / "nvidia-smi"
    command.write_text('#!/bin/sh\n[ "$1" = --query-gpu=driver_version ] && echo 580.65.06 && echo 580.65.06\n')
    command.chmod(0o755)
    assert machine._driver_by_command() == "580.65.06"
    command.write_text("#!/bin/sh\nexit 9\n")
    assert machine._driver_by_command() is None
