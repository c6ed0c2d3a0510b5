"""A folder of what took long to make and is the same in every process of a machine."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from filelock import FileLock, Timeout


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
    path = place() / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_name(f".{path.name}.lock")), tempfile.TemporaryDirectory(prefix="hf_winopt_") as aside:
            if not path.exists():
                # elsewhere first: who writes it may not bear a folder that is full
                made = Path(aside) / name
                make(made)
                path = _stored(made, path)
    return path


def _stored(made: Path, path: Path) -> Path:
    """Where a file is kept that was made elsewhere: at that path, if it can be."""
    try:
        with _partial(path) as partial:
            shutil.copyfile(made, partial)
            os.replace(partial, path)
    except OSError as error:
        return Path(shutil.move(made, _of_this_process(f"{path.parent} ({error.strerror})")))
    return path


def has(name: str) -> bool:
    """Whether the file of that name is there."""
    return (place() / name).exists()


@contextlib.contextmanager
def alone_with(name: str) -> Iterator[bool]:
    """Whether no other process is within it under this name, and none is until this one leaves."""
    with _locked(place() / f".{name}.lock", wait=False) as is_mine:
        yield is_mine


def place() -> Path:
    """Where files are kept: the folder, or one of this process alone where that cannot be written to."""
    chosen = folder()
    try:
        chosen.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=chosen):
            return chosen
    except OSError as error:
        return _of_this_process(f"{chosen} ({error.strerror})")


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
def _locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Whether no other process holds this lock; where files cannot be locked, each is told so."""
    lock = FileLock(path, timeout=-1 if wait else 0)
    try:
        lock.acquire()
    except Timeout:
        yield False
    except (OSError, NotImplementedError):
        yield True
    else:
        try:
            yield True
        finally:
            lock.release()


@contextlib.contextmanager
def _partial(path: Path) -> Iterator[Path]:
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield partial
    finally:
        partial.unlink(missing_ok=True)
