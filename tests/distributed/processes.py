"""A function run by several processes that talk to each other over gloo, on this machine."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

LONG = timedelta(minutes=5)
"""What no process waits for longer: the others are gone. As torch has it, it would be half an hour."""


def together(processes: int, function: Callable[..., None], folder: Path, *arguments: object) -> None:
    """Call `function(*arguments)` in each of the processes, with a process group; its error is raised here."""
    folder.mkdir(parents=True, exist_ok=True)
    mp.spawn(_one, (processes, function, str(folder / "meet"), arguments), nprocs=processes)


def _one(rank: int, processes: int, function: Callable[..., None], meet: str, arguments: tuple[object, ...]) -> None:
    os.environ["LOCAL_RANK"] = str(rank)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=processes, timeout=LONG)
    try:
        function(*arguments)
        dist.barrier()
    finally:
        dist.destroy_process_group()
    # torch's caches of DTensors keep a group and its threads; while Python ends, they can end the process with SIGABRT
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
