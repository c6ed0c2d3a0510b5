"""Two processes that train together, one of which is killed where it is told to be."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from recipes.glue import run_glue, run_glue_no_trainer

SCRIPTS = {"trainer": run_glue, "no_trainer": run_glue_no_trainer}
PROCESSES = 2
LONG = timedelta(minutes=4)


class Moment(NamedTuple):
    """When a process is killed: at one of its calls of `torch.save`, from 1 on, before it or with half of the file."""

    rank: int
    call: int
    half: bool


def together(script: str, argv: list[str], meet: Path, moment: Moment | None = None) -> list[int | None]:
    """Run a script in both processes; their exit codes. A killed one's companion ends by itself, or is ended."""
    context = mp.get_context("forkserver")  # what takes long to import is imported once
    context.set_forkserver_preload([__name__])
    processes = [context.Process(target=_one, args=(rank, script, argv, meet, moment)) for rank in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(LONG.total_seconds())
        process.kill()  # it may wait for the other one for longer than anybody waits for it
        process.join()
    return [process.exitcode for process in processes]


def _one(rank: int, script: str, argv: list[str], meet: Path, moment: Moment | None) -> None:
    here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": PROCESSES, "MASTER_ADDR": "localhost", "MASTER_PORT": 0}
    os.environ.update({name: str(value) for name, value in here.items()})
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=PROCESSES, timeout=LONG)
    if moment is not None and moment.rank == rank:
        _die_at(moment)
    SCRIPTS[script].main(argv)
    if dist.is_initialized():  # Accelerate ends it by itself
        dist.destroy_process_group()


def _die_at(moment: Moment) -> None:
    theirs, calls = torch.save, 0

    def save(thing: Any, file: Any, *args: Any, **kwargs: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == moment.call:
            if moment.half:
                theirs(thing, file, *args, **kwargs)
                os.truncate(file, os.path.getsize(file) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        theirs(thing, file, *args, **kwargs)

    torch.save = save
