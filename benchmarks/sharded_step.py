"""What a step of sharded parameters (DTensor, as FSDP2 makes them) costs the host, beside the same step unsharded.

    python -m benchmarks.sharded_step [--json FILE] [--report FILE]

Many small parameters, so that there is next to nothing to compute: what is left is what the host does. Two processes
over gloo hold a half of each; unsharded, each has parameters of the size of its half. torch's AdamW is measured in the
same processes, in turn, and they begin each sharded step together. Host time is processor time of the thread that
steps; the wall clock sees also how long it waits for the other process, whose collectives have two cores to share with
it. The objects are those that Python's garbage collector knows, before and after many steps.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.optim import Optimizer

from hf_winopt import create_optimizer
from hf_winopt.bench.table import markdown
from hf_winopt.files import write_json
from hf_winopt.integrations.results import environment

TENSORS, SHAPE, PROCESSES = 200, (8, 8), 2
WARM_UP, STEPS, LONG = 20, 200, 1000
NAMES = ("adamw_win", "adan", "adamw_agr", "adal", "lamb", "sgd_win2")
TORCHS = {"torch AdamW, foreach": {"foreach": True}, "torch AdamW, fused": {"fused": True}}


def make(label: str, params: list[nn.Parameter]) -> Optimizer:
    if label in TORCHS:
        return torch.optim.AdamW(params, lr=1e-3, **TORCHS[label])
    return create_optimizer(label, params, lr=1e-3, weight_decay=0.1)


def timed(step: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of this thread's processor time, and by the clock."""
    clock, host = time.perf_counter(), time.thread_time()
    step()
    return time.thread_time() - host, time.perf_counter() - clock


def measure(label: str, mesh: Any) -> dict[str, Any]:
    """Medians of steps that are taken in turn, and the growth in objects over a long run of the sharded one."""

    def shard(tensor: Tensor) -> Tensor:
        return DTensor.from_local(tensor, mesh, [Shard(0)], run_check=False)

    whole = [nn.Parameter(torch.randn(SHAPE)) for _ in range(TENSORS)]
    parts = [nn.Parameter(shard(torch.randn(SHAPE))) for _ in range(TENSORS)]
    for p, q in zip(whole, parts):
        p.grad, q.grad = torch.randn(SHAPE), shard(torch.randn(SHAPE))
    unsharded, sharded = make(label, whole), make(label, parts)
    for _ in range(WARM_UP):
        unsharded.step()
        sharded.step()
    times = []
    for _ in range(STEPS):
        alone = timed(unsharded.step)
        dist.barrier()  # to wait for a process that is late is not what the step costs
        times.append((*alone, *timed(sharded.step)))
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(LONG):
        sharded.step()
    grown = len(gc.get_objects()) - before  # not collected first: what waits for the collector is there as well
    alone, alone_clock, shared, shared_clock = (1000 * statistics.median(column) for column in zip(*times))
    return {
        "optimizer": label,
        "unsharded_ms": alone,
        "sharded_ms": shared,
        "ratio": statistics.median(host[2] / host[0] for host in times),
        "clock_ms": [alone_clock, shared_clock],
        f"objects_after_{LONG}_steps": grown,
    }


def work(rank: int, meet: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=PROCESSES)
    mesh = init_device_mesh("cpu", (PROCESSES,))
    rows = [measure(label, mesh) for label in (*TORCHS, *NAMES)]
    if rank == 0:
        write_json(Path(out), rows)
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # torch's caches of DTensors keep threads, which can end the process with SIGABRT while Python ends


def table(result: dict[str, Any]) -> str:
    heads = (
        "optimizer",
        "unsharded: host, ms",
        "sharded: host, ms",
        "ratio",
        "unsharded: clock, ms",
        "sharded: clock, ms",
        f"more objects after {LONG} steps",
    )
    rows = [
        [
            row["optimizer"],
            f"{row['unsharded_ms']:.2f}",
            f"{row['sharded_ms']:.2f}",
            f"{row['ratio']:.2f}",
            *(f"{each:.2f}" for each in row["clock_ms"]),
            str(row[f"objects_after_{LONG}_steps"]),
        ]
        for row in result["rows"]
    ]
    return markdown(heads, rows)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--report", type=Path, help="only print the table of figures written before")
    arguments = parser.parse_args(argv)
    if arguments.report:
        print(table(json.loads(arguments.report.read_text(encoding="utf-8"))))
        return
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(work, (f"{folder}/meet", f"{folder}/rows.json"), nprocs=PROCESSES)
        rows = json.loads(Path(folder, "rows.json").read_text(encoding="utf-8"))
    result = {"rows": rows, "tensors": TENSORS, "shape": SHAPE, "processes": PROCESSES, "steps": STEPS, **environment()}
    if arguments.json:
        write_json(arguments.json, result)
    print(table(result))


if __name__ == "__main__":
    main()
