"""Faults planted in what the host tells the kernels. Each is caught on the device of `device.py`, and named.

Not collected by itself: `test_engine.py` runs it in a process that has that device.
"""

from __future__ import annotations

import pytest
import torch

from hf_winopt import create_optimizer
from hf_winopt.engine.triton import columns, kernels, table

from .machine import Fault


def step(params: list[torch.nn.Parameter], name: str = "adamw_win") -> None:
    for p in params:
        if p.grad is None:
            p.grad = torch.ones_like(p)
    create_optimizer(name, params, backend="triton").step()


def parameters(*sizes: int) -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.randn(size)) for size in sizes]


@pytest.mark.parametrize("name", ["adamw_win", "lamb", "adan_agr"])
def test_nothing_is_wrong(name):
    step(parameters(300, 5000, 7), name)


@pytest.mark.parametrize("size", [300, 4096])
def test_a_length_that_is_too_large(size, monkeypatch):
    true = table.rows

    def longer(*args):
        rows = true(*args)
        rows[:, columns.NUMEL.value] += 1
        return rows

    monkeypatch.setattr(table, "rows", longer)
    monkeypatch.setattr(table, "pieces", lambda sizes, length, true=table.pieces: true([n + 1 for n in sizes], length))
    with pytest.raises(Fault, match=r"not all of one tensor\nstep, (?s:.*) 0 bytes behind "):
        step(parameters(size))


def test_memory_that_is_no_longer_the_optimizers(monkeypatch):
    """It is there, and nobody would notice: as when state was moved and the table was not made anew."""
    true, elsewhere = table.rows, torch.zeros(300)

    def older(*args):
        rows = true(*args)
        rows[0, columns.STATE.value] = elsewhere.data_ptr()
        return rows

    monkeypatch.setattr(table, "rows", older)
    with pytest.raises(Fault, match="not all of one tensor"):
        step(parameters(300))


class Wide:
    """A kernel that is always told that everything is aligned."""

    def __init__(self, kernel):
        self._kernel = kernel

    def __getitem__(self, grid):
        return lambda *args, **options: self._kernel[grid](*args, **{**options, "ALIGNED": True})


@pytest.mark.parametrize("misplaced", ["a gradient", "a parameter"])
def test_an_address_that_is_no_multiple_of_16_in_a_kernel_for_those_that_are(misplaced, monkeypatch):
    values = torch.randn(2, 5000)
    assert values.data_ptr() % 16 == 0
    p = torch.nn.Parameter(values[0, int(misplaced == "a parameter") :][:4096])
    p.grad = values[1, int(misplaced == "a gradient") :][:4096]
    step([p])  # as it is meant, it is read element by element
    monkeypatch.setattr(kernels, "step", Wide(kernels.step))
    with pytest.raises(Fault, match=r"no multiple of its width\n(?s:.*)ld\.global\.v4\.b32"):
        step([p])


def test_a_chunk_that_is_given_twice(monkeypatch):
    true = table.pieces
    monkeypatch.setattr(table, "pieces", lambda *args: torch.cat([true(*args), true(*args)[:1]]))
    with pytest.raises(Fault, match="what another block of the launch"):
        step(parameters(5000))


@pytest.mark.parametrize("size", [300, 5000])
def test_parameters_that_overlap(size):
    values = torch.randn(2 * size)
    with pytest.raises(Fault, match=r"what another block of the launch writes\nstep, "):
        step([torch.nn.Parameter(values[:size]), torch.nn.Parameter(values[size - 4 :][:size])])
