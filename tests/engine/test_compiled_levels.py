"""The compiled engine at every level of state, against the eager one."""

from __future__ import annotations

import pytest
import torch

from hf_winopt.engine import steppers
from tests.engine.leveled import assert_as_eager


@pytest.mark.parametrize(
    ("name", "level", "dtype"),
    [
        ("adamw_win_agr", "compact", torch.float32),
        ("adan_win2", "8bit", torch.bfloat16),
        ("lamb_win", "8bit", torch.float32),
        ("adal", "float32", torch.float16),
    ],
    ids=str,
)
def test_steps_as_eager_does(name, level, dtype):
    assert_as_eager("compile", name, level, dtype)


def test_one_program_serves_every_size_and_part(monkeypatch):
    whole = assert_as_eager("compile", "adamw_win_agr", "compact", torch.float32)
    monkeypatch.setattr(steppers, "PART", 1000)
    parts = assert_as_eager("compile", "adamw_win_agr", "compact", torch.float32)
    for p, q in zip(whole, parts):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-5)
