"""Sharded parameters (DTensor) are stepped as whole ones are, with one collective for the sums of all of them."""

from __future__ import annotations

import os
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Shard
from torch.distributed.tensor.debug import CommDebugMode
from torch.testing._internal.two_tensor import TwoTensor

from hf_winopt import LAMB, OPTIMIZERS, create_optimizer
from tests.distributed.problems import Pair
from tests.distributed.processes import together

MESHES = {2: (2,), 4: (2, 2)}
OF_EACH_KIND = ("adamw_win", "adan_win2_agr", "adamw_agr", "adal_win", "lamb_win2", "sgd_win2", "adam_l2_d")


def collectives(row_takes_sums: bool, clips: bool) -> int:
    """What a step may cost: one for the sums of all parameters, one for the norm that clipping needs before them."""
    return int(row_takes_sums) + int(clips)


def every_name(processes: int) -> None:
    mesh = init_device_mesh("cpu", MESHES[processes])
    for name in OF_EACH_KIND if mesh.ndim == 2 else OPTIMIZERS:
        row = OPTIMIZERS[name]
        for clip in (0.0, 0.5):
            pair = Pair(name, mesh, max_grad_norm=clip)
            pair.steps(3)
            pair.grads()
            pair.of_whole.step()
            with CommDebugMode() as counted:
                pair.of_parts.step()
            assert counted.get_total_counts() == collectives(row.rule.takes_sums, clip > 0), name
            pair.check(1e-5 if row.rule.takes_sums or clip else 1e-6)
            if clip:
                torch.testing.assert_close(pair.of_parts.grad_norm, pair.of_whole.grad_norm)


@pytest.mark.parametrize("processes", MESHES)
def test_every_name_steps_shards_as_it_steps_the_whole(processes, tmp_path):
    together(processes, every_name, tmp_path, processes)


def others() -> None:
    mesh = init_device_mesh("cpu", (2,))
    for name in ("adamw_agr", "lamb_win"):
        # gradients that are yet to be added up, as tensor parallel leaves some
        pair = Pair(name, mesh)
        pair.grads()
        for i, part in enumerate(pair.parts):
            half = pair.whole[i].grad / 2
            part.grad = DTensor.from_local(half, mesh, [Partial()], run_check=False)
        pair.of_whole.step()
        pair.of_parts.step()
        pair.check(1e-5)

        # a parameter without a gradient is left as it is, and does not disturb the sums of the others
        pair = Pair(name, mesh, max_grad_norm=0.5)
        pair.grads()
        pair.whole[2].grad = pair.parts[2].grad = None
        pair.of_whole.step()
        pair.of_parts.step()
        pair.check(1e-5)

    # AGR that has ended needs no sums any more
    pair = Pair("adamw_agr", mesh, agr_steps=2)
    pair.steps(2)
    pair.grads()
    pair.of_whole.step()
    with CommDebugMode() as counted:
        pair.of_parts.step()
    assert counted.get_total_counts() == 0
    pair.check(1e-5)

    # half precision has float32 state in shards too
    pair = Pair("adamw_win", mesh, torch.bfloat16)
    pair.steps(2)
    pair.check(0)
    assert all(value.dtype == torch.float32 for state in pair.of_parts.state.values() for value in state.values())

    shards = sum(p.to_local().numel() for p in pair.parts)
    assert pair.of_parts.state_bytes() == 4 * 3 * shards + 4 * len(pair.parts)  # of this process, step counts too
    state = pair.of_parts.state[pair.parts[0]]["exp_avg"]
    assert isinstance(state, DTensor) and state.placements == (Shard(0),)


def other_engines() -> None:
    os.environ["TRITON_INTERPRET"] = "1"
    mesh = init_device_mesh("cpu", (2,))
    for name in ("adamw_win", "sgd_win2"):
        for backend in ("triton", "compile"):
            pair = Pair(name, mesh, backend=backend)
            pair.steps(3)
            pair.check(1e-6)
            assert (pair.of_parts._ready.plan is not None) == (backend == "triton")


def fused_sums() -> None:
    os.environ["TRITON_INTERPRET"] = "1"
    mesh = init_device_mesh("cpu", MESHES[dist.get_world_size()])
    options = {"adamw_win": {"max_grad_norm": 0.5}, "adan_win2_agr": {"agr_steps": 2}, "adal": {}, "lamb_win": {}}
    for name, more in options.items():
        pair = Pair(name, mesh, backend="triton", **more)
        pair.steps(2)
        pair.grads()
        pair.of_whole.step()
        with CommDebugMode() as counted:
            pair.of_parts.step()
        assert counted.get_total_counts() == 1, name
        assert pair.of_parts._ready.plan.stepped == set(range(len(pair.parts)))
        pair.check(1e-5)
    # both sums of one optimizer, in groups of their own; a group without decay has no ratio to find
    pair = Pair("lamb", mesh, backend="triton", agr=True)
    for optimizer in (pair.of_whole, pair.of_parts):
        first, last = dict(optimizer.param_groups[0]), dict(optimizer.param_groups[0])
        params = first.pop("params")
        last.pop("params")
        optimizer.param_groups[:] = [
            {**first, "params": params[:4]},
            {**last, "params": params[4:], "weight_decay": 0.0},
        ]
    pair.steps(2)
    pair.grads()
    pair.of_whole.step()
    with CommDebugMode() as counted:
        pair.of_parts.step()
    assert counted.get_total_counts() == 2
    pair.check(1e-5)


def test_the_other_engines_step_shards_too(tmp_path):
    pytest.importorskip("triton")
    together(2, other_engines, tmp_path)


def test_the_triton_engine_completes_its_sums(tmp_path):
    pytest.importorskip("triton")
    together(2, fused_sums, tmp_path)  # on 4 the other engine does; here the interpreter would take most of a minute


def gaps() -> None:
    os.environ["TRITON_INTERPRET"] = "1"
    mesh = init_device_mesh("cpu", (2,))
    odd = DTensor.from_local(torch.randn(4, 6)[:, ::2], mesh, [Shard(0)], run_check=False)
    p = torch.nn.Parameter(odd)
    p.grad = torch.ones_like(p)
    with pytest.raises(ValueError, match="shard of a parameter must lie without gaps"):
        LAMB([p], weight_decay=0.1, backend="triton").step()
    LAMB([p], weight_decay=0.1, backend="eager").step()

    # a gradient that lies otherwise than its parameter is stepped by the same engine as where it does not
    pair = Pair("lamb", mesh, backend="triton")
    pair.grads()
    turned = pair.parts[2].grad.to_local().t().contiguous().t()
    pair.parts[2].grad = DTensor.from_local(turned, mesh, [Shard(1)], run_check=False)
    pair.of_whole.step()
    pair.of_parts.step()
    assert 2 in pair.of_parts._ready.plan.stepped
    pair.check(1e-5)


def test_a_shard_with_gaps_is_refused_where_its_process_would_be_left_alone(tmp_path):
    pytest.importorskip("triton")
    together(2, gaps, tmp_path)


def test_partial_and_missing_gradients_half_precision_and_the_end_of_agr(tmp_path):
    together(2, others, tmp_path)


def again(folder: str) -> None:
    """The second group has the ranks the other way round, and a mesh that is equal to the first."""
    for turn in range(2):
        mesh = init_device_mesh("cpu", (2,))
        pair = Pair("lamb_win", mesh)
        pair.steps(2)
        pair.check(1e-5)
        with mock.patch.object(dist, "all_reduce", wraps=dist.all_reduce) as summing:
            pair.steps(1)
        assert {call.kwargs["group"] for call in summing.call_args_list} == {mesh.get_group(0)}
        if turn == 0:
            rank = dist.get_rank()
            dist.barrier()
            dist.destroy_process_group()
            dist.init_process_group("gloo", init_method=f"file://{folder}/again", rank=1 - rank, world_size=2)


def test_another_process_group_in_the_same_process(tmp_path):
    """Its sums are its own: a group of the first one is not gone on with."""
    together(2, again, tmp_path, str(tmp_path))


def of_wrappers() -> None:
    """Shards that are made of other tensors, as quantized weights under FSDP2, have no address of their own."""
    os.environ["TRITON_INTERPRET"] = "1"
    mesh, here = init_device_mesh("cpu", (2,)), dist.get_rank()

    def shard(whole: torch.Tensor) -> DTensor:
        mine = whole.chunk(2)[here].contiguous()
        return DTensor.from_local(TwoTensor(mine.clone(), mine.clone()), mesh, [Shard(0)], run_check=False)

    draw = torch.Generator().manual_seed(0)
    for backend in ("eager", "compile", "triton"):
        for name in ("adamw_win", "lamb_win", "adamw_agr", "adan"):
            whole = torch.nn.Parameter(torch.randn(6, 5, generator=draw))
            part = torch.nn.Parameter(shard(whole.detach()))
            options = {"lr": 0.1, "weight_decay": 0.1, "max_grad_norm": 1.0}
            of_whole = create_optimizer(name, [whole], backend="eager", **options)
            of_part = create_optimizer(name, [part], backend=backend, **options)
            for _ in range(3):
                whole.grad = torch.randn(6, 5, generator=draw)
                part.grad = shard(whole.grad)
                of_whole.step()
                of_part.step()
            found, right = part._local_tensor, whole.detach().chunk(2)[here]
            assert isinstance(found, TwoTensor) and torch.equal(found.a, found.b), (backend, name)
            torch.testing.assert_close(found.a, right, rtol=1e-5, atol=1e-6)


def test_shards_without_an_address_are_stepped_by_eager(tmp_path):
    together(2, of_wrappers, tmp_path)
