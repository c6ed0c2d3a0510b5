"""Levels of state among processes: no block is ever cut, and codes and scales go through checkpoints as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard, distribute_tensor

from hf_winopt import create_optimizer
from tests.distributed.processes import together

NAMES = ("adamw_win", "lamb_win2", "adan_agr")
LEVELS = ("compact", "8bit")
SHAPES = [(67, 96), (40, 256), (33,)]
"""Rows that no number of processes divides, blocks that are filled up, and a parameter that stays in float32."""

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


class Weights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weights = nn.ParameterList([torch.randn(shape, generator=generator) for shape in SHAPES])


def made(name: str, level: str, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = Weights().to(dtype)
    if dist.is_initialized() and dist.get_world_size() > 1:
        fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    return model, create_optimizer(name, model.parameters(), lr=1e-2, weight_decay=0.1, state=level)


def go(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, seed: int = 0) -> None:
    """Steps with gradients that are the same whoever has which part of them."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for p in model.parameters():
            p.grad = like(torch.randn(p.shape, generator=generator).to(p.dtype), p)
        optimizer.step()


def like(whole: Tensor, p: Any) -> Tensor:
    return distribute_tensor(whole, p.device_mesh, p.placements) if hasattr(p, "device_mesh") else whole


def full(tensor: Any) -> Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def same_as_alone(model: nn.Module, optimizer: torch.optim.Optimizer, whole: nn.Module, alone: Any, sums: bool) -> None:
    for p, q in zip(model.parameters(), whole.parameters()):
        near(full(p.detach()), q.detach(), sums)
        assert optimizer.state[p].keys() == alone.state[q].keys()
        for key, value in alone.state[q].items():
            near(full(optimizer.state[p][key]), value, sums)


def near(ours: Tensor, theirs: Tensor, sums: bool) -> None:
    """To the bit, but where a sum over the whole was added up in another order: codes then flip by one."""
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    if not sums:
        assert torch.equal(ours, theirs)
    elif ours.dtype in (torch.int8, torch.uint8):
        apart = (ours.int() - theirs.int()).abs()
        assert (apart > 1).double().mean() <= 1e-3  # a code that flips is another direction in the next step
    else:
        torch.testing.assert_close(ours.float(), theirs.float(), rtol=1e-2, atol=1e-4 * theirs.abs().max().item())


def sharded() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        for name in NAMES:
            for level in LEVELS:
                model, optimizer = made(name, level, dtype)
                go(model, optimizer, 4)
                whole = Weights().to(dtype)
                alone = create_optimizer(name, whole.parameters(), lr=1e-2, weight_decay=0.1, state=level)
                go(whole, alone, 4)
                same_as_alone(model, optimizer, whole, alone, sums=name != "adamw_win")


@pytest.mark.parametrize("processes", [2, 3])
def test_shards_are_stepped_as_the_whole_is(processes: int, tmp_path: Path) -> None:
    together(processes, sharded, tmp_path)


def by_columns() -> None:
    """Tensor parallel: rows that are cut stay in blocks where the cuts are between blocks."""
    mesh = init_device_mesh("cpu", (2,))
    for columns, kept in ((512, torch.int8), (200, torch.float32)):
        weight = torch.randn(64, columns, generator=torch.Generator().manual_seed(2))
        whole = nn.Parameter(weight.clone())
        p = nn.Parameter(distribute_tensor(weight, mesh, [Shard(1)]))
        ours, alone = (create_optimizer("adamw_win", [each], lr=1e-2, state="8bit") for each in (p, whole))
        for seed in range(3):
            whole.grad = torch.randn(64, columns, generator=torch.Generator().manual_seed(seed))
            p.grad = distribute_tensor(whole.grad, mesh, [Shard(1)])
            ours.step()
            alone.step()
        assert ours.state[p]["exp_avg"].dtype == kept
        if kept == torch.int8:
            assert torch.equal(p.detach().full_tensor(), whole.detach())
            for key, value in alone.state[whole].items():
                assert torch.equal(full(ours.state[p][key]), value), key
        else:
            torch.testing.assert_close(p.detach().full_tensor(), whole.detach(), rtol=0, atol=1e-3)


def test_cuts_between_blocks(tmp_path: Path) -> None:
    together(2, by_columns, tmp_path)


def save(folder: str) -> None:
    for name in NAMES:
        for level in LEVELS:
            model, optimizer = made(name, level)
            go(model, optimizer, 3)
            model_state, optimizer_state = get_state_dict(model, optimizer)
            at = f"{folder}/{name}_{level}"
            dcp.save({"model": model_state, "optimizer": optimizer_state}, checkpoint_id=at)
            state = get_optimizer_state_dict(model, optimizer, options=WHOLE)
            if dist.get_rank() == 0:
                torch.save(state["state"], f"{at}.pt")


def load(folder: str) -> None:
    for name in NAMES:
        for level in LEVELS:
            model, optimizer = made(name, level)
            model_state, optimizer_state = get_state_dict(model, optimizer)
            state = {"model": model_state, "optimizer": optimizer_state}
            at = f"{folder}/{name}_{level}"
            dcp.load(state, checkpoint_id=at)
            set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
            saved = torch.load(f"{at}.pt", weights_only=True)
            for key, p in model.named_parameters():
                for part, value in optimizer.state[p].items():
                    assert torch.equal(full(value), saved[key][part]), (name, level, key, part)
            go(model, optimizer, 2, seed=1)
            whole, alone = Weights(), None
            alone = create_optimizer(name, whole.parameters(), lr=1e-2, weight_decay=0.1, state=level)
            go(whole, alone, 3)
            go(whole, alone, 2, seed=1)
            same_as_alone(model, optimizer, whole, alone, sums=name != "adamw_win")


@pytest.mark.parametrize("loading", [3, 1])
def test_the_same_bits_on_another_number_of_processes(loading: int, tmp_path: Path) -> None:
    together(2, save, tmp_path / "saving", str(tmp_path))
    together(loading, load, tmp_path / "loading", str(tmp_path))


def other_level(folder: str) -> None:
    """`torch.distributed.checkpoint` fills tensors by name: codes would be taken for values."""
    model, optimizer = made("adamw_win", "8bit")
    go(model, optimizer, 3)
    model_state, optimizer_state = get_state_dict(model, optimizer)
    dcp.save({"model": model_state, "optimizer": optimizer_state}, checkpoint_id=folder)
    model, optimizer = made("adamw_win", "float32")
    model_state, optimizer_state = get_state_dict(model, optimizer)
    state = {"model": model_state, "optimizer": optimizer_state}
    dcp.load(state, checkpoint_id=folder)
    with pytest.raises(ValueError, match=r"codes of another level of state without their scales.*saved at"):
        set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])


def test_another_level_is_refused_with_what_to_do(tmp_path: Path) -> None:
    together(2, other_level, tmp_path, str(tmp_path / "saved"))


def averaged() -> None:
    """As LocalSGD does: each process goes its own way for some steps, and then all go on from the mean."""
    for name in NAMES:
        for level in ("float32", *LEVELS):
            model = Weights()
            optimizer = create_optimizer(name, model.parameters(), lr=1e-3, state=level)
            go(model, optimizer, 3, seed=dist.get_rank())
            with torch.no_grad():
                for p in model.parameters():
                    p.add_(5.0 * dist.get_rank())
                    dist.all_reduce(p)
                    p.div_(2)
            means = [p.detach().clone() for p in model.parameters()]
            go(model, optimizer, 1, seed=9)
            for p, mean in zip(model.parameters(), means):
                assert 0 < (p - mean).abs().max() < 0.05, (name, level)


def test_an_average_over_processes_stays(tmp_path: Path) -> None:
    together(2, averaged, tmp_path)
