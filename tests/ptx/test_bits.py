"""The compiled kernels give the interpreter's bits; and those compiled for one GPU, the bits of those for another."""

from __future__ import annotations

import pytest
import torch
import triton

from .bits import cases
from .device import TARGET
from .processes import run

TITLES = [title for title, _ in cases()]
ELSEWHERE = ["adamw_win torch.bfloat16", "adan_win2 torch.float16", "adan_win2_agr exact"]
GPUS = {"80": "Ampere", "100": "Blackwell"}
EXACT = tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 9)


def left_by(how, folder, *titles, **variables):
    """What a run of `bits` leaves: a dict of tensors for each title."""
    file = folder / f"{how}.pt"
    told = run("tests.ptx.bits", how, str(file), *titles, **variables)
    assert told.returncode == 0, told.stderr[-3000:]
    return torch.load(file)


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    return left_by("executed", tmp_path_factory.mktemp("executed"))


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory):
    return left_by("interpreted", tmp_path_factory.mktemp("interpreted"))


def bits(tensor):
    """As whole numbers; every one that stands for no number as one and the same, since PTX leaves open which it is."""
    if not tensor.is_floating_point():
        return tensor
    kind = {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    return torch.where(tensor.isnan(), torch.tensor(torch.nan, dtype=tensor.dtype), tensor).view(kind)


@pytest.mark.skipif(not EXACT, reason="older Triton makes 0 of -0, or flushes what is subnormal where it divides")
@pytest.mark.parametrize("title", TITLES)
def test_as_interpreted(title, executed, interpreted):
    ours, theirs = executed[title], interpreted[title]
    assert ours.keys() == theirs.keys() and ours
    for what, tensor in ours.items():
        assert tensor.dtype == theirs[what].dtype
        differ = (bits(tensor) != bits(theirs[what])).nonzero().tolist()
        assert not differ, f"{what} at {differ[:5]}: {tensor[tuple(differ[0])]} and {theirs[what][tuple(differ[0])]}"


def test_what_is_compared_is_of_all_kinds(executed):
    """Not all infinite or no numbers by the last step, and not left as it was."""
    for title, found in executed.items():
        last = [value for what, value in found.items() if what.startswith("step 2") and value.numel() > 1]
        whole = torch.cat([value.double().flatten() for value in last])
        assert whole.isfinite().double().mean() > 0.9, title
        assert whole.unique().numel() > 1000, title
    special = executed["adamw_win torch.float32"]
    subnormal = [(value != 0) & (value.abs() < 1.17e-38) for value in special.values() if value.dtype == torch.float32]
    assert sum(int(each.sum()) for each in subnormal) > 100


@pytest.mark.parametrize("architecture", GPUS)
def test_compiled_for_another_gpu(architecture, executed, tmp_path):
    elsewhere = left_by("executed", tmp_path, *ELSEWHERE, **{TARGET: architecture})
    assert list(elsewhere) == ELSEWHERE
    for title, found in elsewhere.items():
        for what, tensor in found.items():
            assert torch.equal(bits(tensor), bits(executed[title][what])), (title, what)
