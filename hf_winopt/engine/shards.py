"""Parameters that processes hold in shards (DTensor): the shard that is here, and sums completed over all of them.

A DTensor is touched only to take its shard: an operation on one goes through a dispatcher that takes longer than the
step. The sums of all parameters on a mesh of processes are completed together, by one collective.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import is_
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

PLAIN = {Tensor, torch.nn.Parameter, torch.nn.Buffer}


@dataclass(frozen=True)
class Sharing:
    """Who shares a parameter.

    Args:
        mesh: the processes; each has a shard, or one of several copies of a shard.
        counts: whether the shard of this process is the one of its copies that goes into sums.
    """

    mesh: DeviceMesh
    counts: bool


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is a DTensor."""
    return hasattr(tensor, "device_mesh")


def any_sharded(tensors: Sequence[Tensor]) -> bool:
    """Whether any of them is a DTensor; costs next to nothing where none is."""
    return any(map(is_sharded, tensors)) if set(map(type, tensors)) - PLAIN else False


def local(tensor: Tensor) -> Tensor:
    """The shard that is here; of a tensor that is none of several shards, itself."""
    # to_local() would make a view of a parameter at every call
    shard: Any = getattr(tensor, "_local_tensor", tensor)
    if type(shard) in PLAIN or not hasattr(shard, "wait"):
        return shard
    return shard.wait()  # what a collective has not delivered yet


def mesh_of(tensor: Tensor) -> DeviceMesh | None:
    """The processes among which a tensor is sharded or copied; None of one that is no DTensor."""
    return getattr(tensor, "device_mesh", None)


def placed_like(param: Any, tensor: Any) -> Tensor:
    """A tensor, on the parameter's mesh if that has one, sharded as the parameter is."""
    if not is_sharded(param) or tensor.placements == param.placements:
        return tensor
    return tensor.redistribute(placements=param.placements)


def local_grad(param: Tensor, z: Tensor) -> Tensor | None:
    """The shard of a parameter's gradient, placed as the parameter is, and laid out as its shard `z`.

    A layout that one process has and another has not would have them step by different engines.
    """
    grad = param.grad
    if grad is None or z is param:
        return grad
    g = local(placed_like(param, grad))
    return g if g.stride() == z.stride() else torch.empty_like(z, dtype=g.dtype).copy_(g)


def sharing(param: Tensor) -> Sharing | None:
    """Who shares a parameter; None where it is whole on every process."""
    if not is_sharded(param):
        return None
    mesh, placements = param.device_mesh, param.placements  # type: ignore[attr-defined]
    if all(placement.is_replicate() for placement in placements):
        return None
    here = mesh.get_coordinate()
    return _one_of_equal(mesh, all(not p.is_replicate() or at == 0 for p, at in zip(placements, here)))


def cuts_rows_only(param: Tensor, block: int) -> bool:
    """Whether no block of a row lies in two shards: rows are whole, or cut evenly into whole blocks."""
    if not is_sharded(param):
        return True
    cut = 1
    for placement, size in zip(param.placements, param.device_mesh.shape):  # type: ignore[attr-defined]
        if placement.is_replicate():
            continue
        if (dim := getattr(placement, "dim", None)) == 0:
            continue
        if dim != 1 or param.ndim != 2:
            return False
        cut *= size
    return cut == 1 or param.shape[1] % (cut * block) == 0


def like(param: Tensor, shard: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
    """A tensor that has `shard` where `param` has its own; the whole of that shape if it is not the parameter's."""
    if not is_sharded(param):
        return shard
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        shard,
        param.device_mesh,  # type: ignore[attr-defined]
        param.placements,  # type: ignore[attr-defined]
        run_check=False,
        shape=param.shape if shape is None else torch.Size(shape),
        stride=param.stride() if shape is None else torch.empty(shape, device="meta").stride(),
    )


def complete(sums: Tensor, sharings: Sequence[Sharing | None]) -> Tensor:
    """The sums over all shards of what each process has found over its own; `sums` may be changed.

    Args:
        sums: a row for each parameter, in the same order on all processes.
        sharings: of the parameters.
    """
    return Completion(sharings, sums.device)(sums)


class Completion:
    """What `complete` does, made ready once, so that no device waits for it.

    Args:
        sharings: of the parameters.
        device: of the sums.
    """

    def __init__(self, sharings: Sequence[Sharing | None], device: torch.device) -> None:
        self._of_meshes: list[tuple[DeviceMesh, Tensor | None, Tensor | None]] = []
        one = sharings[0] if sharings else None
        if one is not None and one.counts and all(map(is_, sharings, repeat(one))):
            self._of_meshes.append((one.mesh, None, None))
            return
        for mesh in {id(each.mesh): each.mesh for each in sharings if each is not None}.values():
            mine = [i for i, each in enumerate(sharings) if each is not None and each.mesh is mesh]
            counts = [each.counts for each in sharings if each is not None and each.mesh is mesh]
            here = None if len(mine) == len(sharings) else torch.tensor(mine, device=device)
            counted = None if all(counts) else torch.tensor(counts, device=device)
            self._of_meshes.append((mesh, here, counted))

    @property
    def tensors(self) -> list[Tensor]:
        """Those that it reads beside the sums."""
        return [tensor for _, *both in self._of_meshes for tensor in both if tensor is not None]

    def __call__(self, sums: Tensor) -> Tensor:
        """The sums, completed; those given may be changed."""
        for mesh, here, counted in self._of_meshes:
            part = sums if here is None else sums.index_select(0, here)
            if counted is not None:
                part = torch.where(counted.view(-1, *[1] * (sums.ndim - 1)), part, 0.0)
            torch.distributed.all_reduce(part, group=_group(mesh))
            sums = part if here is None else sums.index_copy(0, here, part)
        return sums


class _World:
    """What is known of meshes while one default process group is up; another one's meshes can be equal to them.

    Groups are held weakly: one that outlives `destroy_process_group` has threads at the end of the process.
    """

    def __init__(self) -> None:
        self.sharings: dict[tuple[DeviceMesh, bool], Sharing] = {}
        self.groups: weakref.WeakValueDictionary[DeviceMesh, Any] = weakref.WeakValueDictionary()


_worlds: weakref.WeakKeyDictionary[Any, _World] = weakref.WeakKeyDictionary()


def _world() -> _World:
    default = torch.distributed.group.WORLD
    return _World() if default is None else _worlds.setdefault(default, _World())


def _one_of_equal(mesh: DeviceMesh, counts: bool) -> Sharing:
    """The same object for all that are equal, which would be slow to compare; with the same mesh, too."""
    known = _world().sharings
    if (mesh, counts) not in known:
        other = known.get((mesh, not counts))
        known[mesh, counts] = Sharing(mesh if other is None else other.mesh, counts)
    return known[mesh, counts]


def _group(mesh: DeviceMesh) -> Any:
    """The processes of a mesh as one group, whatever its dimensions."""
    known = _world().groups
    group = known.get(mesh)
    if group is None:
        group = known[mesh] = _found_group(mesh)
    return group


def _found_group(mesh: DeviceMesh) -> Any:
    if mesh.ndim == 1:
        return mesh.get_group(0)
    ranks = mesh.mesh.flatten().tolist()
    if len(ranks) == torch.distributed.get_world_size():
        return torch.distributed.group.WORLD
    return torch.distributed.new_group(ranks, use_local_synchronization=True)
