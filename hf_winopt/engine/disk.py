"""A folder of what took long to make and is the same in every process of a machine."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from filelock import FileLock


def folder() -> Path:
    """`$HF_WINOPT_CACHE`, else `hf_winopt` where the user's caches are."""
    if own := os.environ.get("HF_WINOPT_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hf_winopt"


@functools.cache
def processor() -> str:
    """What code for this machine may use: compiled for one processor, it can crash on another of the same home."""
    flags = ""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return "\n".join((platform.platform(), platform.processor(), torch.backends.cpu.get_cpu_capability(), flags))


def kept(name: str, make: Callable[[Path], None]) -> Path:
    """The file of that name in the folder; made by the first process that asks, for whom the others wait.

    Args:
        make: writes the file to the path it is given.
    """
    path = _place() / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with _only_one(path), _partial(path) as partial:
            if not path.exists():
                make(partial)
                os.replace(partial, path)
    return path


def _place() -> Path:
    place = folder()
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=place):
            return place
    except OSError as error:
        return _of_this_process(f"{place} ({error.strerror})")


@functools.cache
def _of_this_process(elsewhere: str) -> Path:
    warnings.warn(
        f"compiled code cannot be kept in {elsewhere}, so every process compiles anew; name a folder that can be "
        "written to in HF_WINOPT_CACHE",
        stacklevel=2,
    )
    kept_alive = tempfile.TemporaryDirectory(prefix="hf_winopt_")
    _folders.append(kept_alive)
    return Path(kept_alive.name)


_folders: list[tempfile.TemporaryDirectory[str]] = []
"""They are removed when the process ends."""


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """No other process makes the file at the same time; where files cannot be locked, several may, each its own."""
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire()
    except (OSError, NotImplementedError):
        yield
        return
    with lock:
        lock.release()
        yield


@contextlib.contextmanager
def _partial(path: Path) -> Iterator[Path]:
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield partial
    finally:
        partial.unlink(missing_ok=True)
