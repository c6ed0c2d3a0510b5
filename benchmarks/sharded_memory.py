"""Memory of every optimizer: of parameters, gradients and state, by formula and as held after two steps.

    python -m benchmarks.sharded_memory [--json FILE] [--report FILE]

Measured is what a process holds: the storages of its parameters, its gradients and its optimizer's state, each counted
once, on one process and on two under FSDP2 (of the two, the one that holds more). All is given in bytes for each
parameter of the whole model, whose biases are 0.4 % of it and keep float32 state at every level.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from hf_winopt import OPTIMIZERS, create_optimizer
from hf_winopt.bench.table import markdown
from hf_winopt.files import write_json
from hf_winopt.integrations.results import environment
from hf_winopt.optim.levels import rule_for
from hf_winopt.rules import STATES

LAYERS, WIDTH, BATCH = 4, 256, 8
PROCESSES = (1, 2)
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}
PARTS = ("parameters", "gradients", "state")

CODED = ("adamw_win", "adamw_win2", "adamw_d", "lamb_win", "sgd_win", "adan", "adan_win2")
"""What is measured at other levels of state than float32, too."""

CASES = [(name, level) for level in STATES for name in OPTIMIZERS if level == "float32" or name in CODED]


def whole(dtype: torch.dtype, device: str) -> nn.Sequential:
    return nn.Sequential(*[nn.Linear(WIDTH, WIDTH, device=device) for _ in range(LAYERS)]).to(dtype)


def made(dtype: torch.dtype) -> nn.Module:
    """A model in shards if there are several processes."""
    torch.manual_seed(0)
    model = whole(dtype, "cpu")
    if dist.get_world_size() > 1:
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        for layer in (*model, model):
            fully_shard(layer, mesh=mesh)
    return model


def held(tensors: Iterable[Tensor]) -> int:
    """Bytes that this process holds of them; two views of the same memory count once."""
    shards = [getattr(tensor, "_local_tensor", tensor) for tensor in tensors]
    storages = {shard.untyped_storage().data_ptr(): shard.untyped_storage() for shard in shards}
    return sum(storage.nbytes() for storage in storages.values())


def measure(name: str, level: str, dtype: torch.dtype) -> dict[str, float]:
    """Bytes per parameter that this process holds after two steps, before the gradients are set to None."""
    model = made(dtype)
    optimizer = create_optimizer(name, model.parameters(), lr=1e-3, weight_decay=0.1, state=level)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(BATCH, WIDTH, dtype=dtype)).square().mean().backward()
        optimizer.step()
    params = list(model.parameters())
    state = [value for each in optimizer.state.values() for value in each.values()]
    bytes_held = (held(params), held(p.grad for p in params), held(state))
    elements = sum(p.numel() for p in params)
    return {part: each / elements for part, each in zip(PARTS, bytes_held)}


def work(rank: int, processes: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet{processes}", rank=rank, world_size=processes)
    rows = []
    for name, level in CASES:
        for dtype_name, dtype in DTYPES.items():
            everybodys: list[Any] = [None] * processes
            dist.all_gather_object(everybodys, measure(name, level, dtype))
            most = max(everybodys, key=lambda mine: sum(mine.values()))
            case = {"name": name, "level": level, "dtype": dtype_name, "processes": processes}
            rows.append({**case, "measured": most})
    if rank == 0:
        write_json(Path(folder, f"rows{processes}.json"), rows)
    dist.barrier()
    dist.destroy_process_group()
    # torch's caches of DTensors keep a group and its threads; while Python ends, they can end the process with SIGABRT
    os._exit(0)


@functools.cache
def _state(name: str, level: str, dtype: str) -> float:
    """Bytes of state for each parameter of the model, the level of each tensor as the package chooses it."""
    asked = replace(OPTIMIZERS[name].at(level), remainder=True)
    params = list(whole(DTYPES[dtype], "meta").parameters())
    state = sum(p.numel() * rule_for(asked, p).state_bytes_per_param() for p in params)
    return state / sum(p.numel() for p in params)


def formula(name: str, dtype: str, processes: int = 1, level: str = "float32") -> dict[str, float]:
    """Bytes per parameter on each of the processes."""
    size = DTYPES[dtype].itemsize
    everything = (size, size, _state(name, level, dtype))
    return {part: each / processes for part, each in zip(PARTS, everything)}


def table(result: dict[str, Any], level: str = "float32") -> str:
    """The state alone, and parameters, gradients and state together: by formula (and measured)."""
    measured = {(row["name"], row["dtype"], row["processes"]): row["measured"] for row in _of(result, level)}
    places = [(dtype, processes) for dtype in DTYPES for processes in PROCESSES]
    names = {1: "one process", 2: "FSDP2 on two"}
    rows = []
    for name in [name for name, of in CASES if of == level]:
        state = formula(name, "float32", 1, level)["state"], measured[name, "float32", 1]["state"]
        sums = [
            (sum(formula(name, *place, level).values()), sum(measured[(name, *place)].values())) for place in places
        ]
        rows.append([name, *[f"{right:.4g} ({found:.2f})" for right, found in (state, *sums)]])
    heads = [f"{level}: optimizer", "state", *[f"{dtype}, {names[processes]}" for dtype, processes in places]]
    return markdown(heads, rows)


def _of(result: dict[str, Any], level: str) -> list[dict[str, Any]]:
    return [row for row in result["rows"] if row["level"] == level]


def by_size() -> str:
    """GB on each GPU for a billion parameters, by formula, for one GPU, eight, and eight machines of eight."""
    gpus = (1, 8, 64)

    def costs(case: tuple[str, str]) -> tuple[float, ...]:
        name, level = case
        return tuple(round(_state(name, level, dtype), 2) for dtype in DTYPES)

    heads = ["optimizers", "level", "state, bytes (bf16)"]
    heads += [f"{dtype}, {n} GPU{'s' * (n > 1)}" for dtype in DTYPES for n in gpus]
    rows = []
    for level in STATES:
        cases = sorted((case for case in CASES if case[1] == level), key=costs)
        for (state, of_bf16), group in groupby(cases, key=costs):
            alike = [name for name, _ in group]
            sizes = [sum(formula(alike[0], dtype, n, level).values()) for dtype in DTYPES for n in gpus]
            bytes_each = f"{state:.3g} ({of_bf16:.3g})"
            rows.append([", ".join(alike), level, bytes_each, *[f"{size:.3g}" for size in sizes]])
    return markdown(heads, rows, aligned=False)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--report", type=Path, help="only print the tables of figures written before")
    arguments = parser.parse_args(argv)
    if arguments.report:
        result = json.loads(arguments.report.read_text(encoding="utf-8"))
    else:
        rows: list[dict[str, Any]] = []
        with tempfile.TemporaryDirectory() as folder:
            for processes in PROCESSES:
                mp.spawn(work, (processes, folder), nprocs=processes)
                rows += json.loads(Path(folder, f"rows{processes}.json").read_text(encoding="utf-8"))
        result = {"rows": rows, "layers": LAYERS, "width": WIDTH, **environment()}
    if arguments.json:
        write_json(arguments.json, result)
    print(*(table(result, level) for level in STATES), by_size(), sep="\n\n")


if __name__ == "__main__":
    main()
