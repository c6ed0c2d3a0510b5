"""Where runs are executed: beside each other on this machine, or as tasks of a Ray cluster."""

from __future__ import annotations

import logging
import os
import queue
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

from hf_winopt.compare.outcome import FAILED, Outcome
from hf_winopt.compare.runs import Guard, Interrupted, Job, execute, keep


class Pool(Protocol):
    """Takes jobs, as many at a time as it can."""

    slots: int

    def submit(self, job: Job) -> Future[Outcome]:
        """Execute the job when there is room for it."""

    def close(self) -> None:
        """Let go of what has not ended."""


class LocalPool:
    """Processes on this machine, each with a GPU of its own where there are GPUs.

    Args:
        slots: how many at a time; None for one a GPU, or one where there is none. More than there are GPUs share them.
    """

    def __init__(self, slots: int | None = None) -> None:
        gpus = visible_gpus()
        self.slots = slots or len(gpus) or 1
        self._guard = Guard()
        self._executor = ThreadPoolExecutor(self.slots)
        self._devices: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        for index in range(self.slots):
            self._devices.put(gpus[index % len(gpus)] if gpus else None)

    def submit(self, job: Job) -> Future[Outcome]:
        return self._executor.submit(self._execute, job)

    def _execute(self, job: Job) -> Outcome:
        device = self._devices.get()
        try:
            return execute(job, device, self._guard)
        finally:
            self._devices.put(device)

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._guard.end_all()


class RayPool:
    """Tasks of a Ray cluster. `--out` must be on a file system that all its nodes share.

    A task takes a GPU where the cluster has GPUs, otherwise as many CPUs as a run has threads.

    Args:
        address: of the cluster: "auto", "ray://HOST:PORT", or "local" for one that lives as long as this process.
        slots: how many tasks at a time; None leaves it to Ray.
        threads: of a run.

    Raises:
        ImportError: Ray is not installed.
        ConnectionError: no cluster at that address.
        ValueError: no node has `threads` CPUs.
    """

    def __init__(self, address: str, slots: int | None = None, threads: int = 1) -> None:
        try:
            import ray
        except ImportError:
            raise ImportError("--ray needs Ray: pip install 'hf-winopt[ray]'") from None
        self._ray: Any = ray
        self._closing = False
        # On "local": what this machine has, but room for the runs that were asked for.
        cpus = slots * threads if address == "local" and slots else None
        ray.init(address=address, num_cpus=cpus, log_to_driver=False, logging_level=logging.WARNING)
        whole = ray.cluster_resources()
        gpus = int(whole.get("GPU", 0))
        if not gpus and (most := max(int(node["Resources"].get("CPU", 0)) for node in ray.nodes())) < threads:
            ray.shutdown()
            raise ValueError(f"--threads {threads}: no node of the cluster has so many CPUs, the largest has {most}")
        self.slots = min(slots or sys.maxsize, gpus or int(whole["CPU"]) // threads)
        cpus_each, gpus_each = (1, 1) if gpus else (threads, 0)
        self._task = ray.remote(num_cpus=cpus_each, num_gpus=gpus_each, max_retries=1)(execute)
        self._executor = ThreadPoolExecutor(self.slots)  # waits, and keeps tasks beyond `slots` back

    def submit(self, job: Job) -> Future[Outcome]:
        return self._executor.submit(self._execute, job)

    def _execute(self, job: Job) -> Outcome:
        try:
            return self._ray.get(self._task.remote(job))
        except tuple(getattr(self._ray.exceptions, name) for name in _LOST) as error:
            if self._closing:
                raise Interrupted from None
            lost = Outcome(FAILED, f"Ray lost the task twice: {type(error).__name__}")
            keep(job.folder, lost)
            return lost

    def close(self) -> None:
        self._closing = True
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._ray.shutdown()


# What ends one task. Anything else that Ray raises ends the comparison: the cluster, or what `execute` found wrong.
_LOST = ("WorkerCrashedError", "NodeDiedError", "OutOfMemoryError", "ObjectLostError")


def visible_gpus() -> list[str]:
    """What `CUDA_VISIBLE_DEVICES` may name, an entry a GPU that this process may use."""
    import torch

    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = listed.split(",") if listed else [str(index) for index in range(torch.cuda.device_count())]
    return [name.strip() for name in names if name.strip()] if torch.cuda.is_available() else []
