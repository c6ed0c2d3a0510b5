"""The compiled engine at every level of state, against the eager one."""

from __future__ import annotations

import pytest
import torch

from hf_winopt import create_optimizer
from hf_winopt.engine.cpp import library, loops
from tests.engine.leveled import assert_as_eager

CHUNK = loops.CHUNK


@pytest.mark.parametrize(
    ("name", "level", "dtype"),
    [
        ("adamw_win_agr", "compact", torch.float32),
        ("adan_win2", "8bit", torch.bfloat16),
        ("lamb_win", "8bit", torch.float32),
        ("adal", "float32", torch.float16),
        ("sgd_win", "compact", torch.float16),
    ],
    ids=str,
)
def test_steps_as_eager_does(name, level, dtype):
    assert_as_eager("compile", name, level, dtype)


@pytest.mark.parametrize("rows", [CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7])
def test_one_program_serves_every_size(rows, monkeypatch):
    assert_as_eager("compile", "adamw_win_agr", "compact", torch.float32, steps=1)
    monkeypatch.setattr(library, "build", lambda *_: pytest.fail("compiled once more"))
    assert_as_eager("compile", "adamw_win_agr", "compact", torch.float32, steps=2, shapes=[(rows, 128)])


def test_sums_are_the_same_by_any_number_of_threads():
    """They are of so many blocks each, and added up in order, whoever found them."""
    found = []
    for threads in (1, 2, 3):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            found.append(_stepped(rows=5 * CHUNK + 3))
        finally:
            torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def _stepped(rows: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    p = torch.nn.Parameter(torch.randn(rows, 128, generator=generator))
    optimizer = create_optimizer("lamb_win", [p], lr=1e-2, weight_decay=0.1, backend="compile", state="8bit")
    for _ in range(2):
        p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()
    return p.detach()


@pytest.mark.parametrize(
    ("name", "level", "dtype"),
    [("lamb_win", "8bit", torch.float32), ("adamw_agr", "compact", torch.float32), ("lamb", "float32", torch.bfloat16)],
    ids=str,
)
def test_sums_do_not_land_on_the_default_device(name, level, dtype):
    """Where they had no memory, or another's."""
    found = []
    for device in ("cpu", "meta"):
        params = [torch.nn.Parameter(torch.ones(size, dtype=dtype)) for size in ((64, 128), (300,))]
        optimizer = create_optimizer(name, params, lr=1e-2, weight_decay=0.1, backend="compile", state=level)
        for p in params:
            p.grad = torch.full_like(p, 0.1)
        with torch.device(device):
            optimizer.step()
        found.append(params)
    assert all(map(torch.equal, *found))
