"""The compiled engine at every level of state, against the eager one."""

from __future__ import annotations

import pytest
import torch

from hf_winopt import create_optimizer
from tests.engine.leveled import SHAPES, assert_as_eager


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
    from hf_winopt.engine import steppers

    whole = assert_as_eager("compile", "adamw_win_agr", "compact", torch.float32)
    monkeypatch.setattr(steppers, "PART", 1000)
    parts = assert_as_eager("compile", "adamw_win_agr", "compact", torch.float32)
    for p, q in zip(whole, parts):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-5)


def test_a_shard_of_one_block_is_stepped():
    """To the compiler another kind of size."""
    p = torch.nn.Parameter(torch.randn(64, 128))
    optimizer = create_optimizer("adamw_win", [p], backend="compile", state="compact", lr=0.1)
    p.grad = torch.ones_like(p)
    optimizer.step()
    assert not p.isnan().any() and len(SHAPES) > 2
