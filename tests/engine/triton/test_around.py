"""The passes around another optimizer's step, at all sizes, types and layouts: with the numbers of the eager engine."""

from __future__ import annotations

import pytest
import torch

from hf_winopt import Win
from hf_winopt.engine.triton import around, table
from hf_winopt.optim.restated import values

SHAPES = [(3, 5), (70, 130), (64, 256), (33, 3, 66), (5,), (1,), (), (0,), (table.CHUNK + 3,)]
CLOSE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float16: 2e-3}


def made(dtype, device, backend, **options):
    torch.manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(shape).to(device, dtype)) for shape in SHAPES]
    params.append(torch.nn.Parameter(torch.randn(6, 4).to(device, dtype).t()))
    return params, Win(torch.optim.SGD(params, lr=1e-2, momentum=0.9), backend=backend, **options)


def stepped(params, optimizer, steps=3):
    for t in range(steps):
        generator = torch.Generator().manual_seed(t)
        for i, p in enumerate(params):
            p.grad = None if i == t else torch.randn(p.shape, generator=generator).to(p.device, p.dtype)
        optimizer.step()


@pytest.mark.parametrize("acceleration", ["win", "win2"])
@pytest.mark.parametrize("state", ["float32", "compact"])
@pytest.mark.parametrize("dtype", CLOSE, ids=str)
def test_as_the_eager_engine(dtype, state, acceleration, device):
    mine, ours = made(dtype, device, "triton", acceleration=acceleration, state=state)
    yours, theirs = made(dtype, device, "eager", acceleration=acceleration, state=state)
    stepped(mine, ours)
    stepped(yours, theirs)
    for p, q in zip(mine, yours):
        check(p.detach(), q.detach(), CLOSE[dtype])
        for name, value in theirs.state[q].items():
            if value is not None and name.endswith("gap"):
                assert ours.state[p][name].dtype == value.dtype
                check(values(ours.state[p], name), values(theirs.state[q], name), CLOSE[dtype])


def check(mine, yours, close):
    """A code flips where a value lies between two, and takes its element along; of 1,000 at most one."""
    far = (mine - yours).abs() > close * (1 + yours.abs())
    assert mine.numel() == 0 or far.double().mean() <= 1e-3
    torch.testing.assert_close(mine, yours, rtol=0, atol=max(close, 1e-3) * 4)


def test_tables_are_made_once_and_again_where_a_tensor_has_moved(device):
    around._prepared.clear()
    params, optimizer = made(torch.float32, device, "triton")
    stepped(params, optimizer, 1)
    (first,) = around._prepared.values()
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.step()
    optimizer.step()
    assert len(around._prepared) == 2  # one parameter had no gradient at first
    moved = params[1]
    before = moved.detach().clone()
    moved.data = moved.detach().clone()
    optimizer.step()
    assert len(around._prepared) == 3
    assert first in around._prepared.values()
    assert not torch.equal(before, moved)
