"""Memory that was freed stays with the process, and need not be asked of the system anew."""

from __future__ import annotations

import contextlib
import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h."""


_LARGEST = 1 << 25
"""Bytes; glibc takes no higher one for M_MMAP_THRESHOLD."""


def keep_freed_memory(up_to: int = 1 << 30) -> None:
    """For a process of its own that takes many products; on a CPU, where the C library is glibc, else nothing happens.

    A product takes and frees the memory of a graph. The C library gives it back, and for the next one the system clears
    every page of it again: some percent of a product's time, and most of its unevenness. Tensors of more than 32 MB are
    given back all the same.

    Args:
        up_to: bytes that stay.
    """
    with contextlib.suppress(AttributeError, OSError, ValueError):
        if (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc"):
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(_TRIM_THRESHOLD, up_to)
            mallopt(_MMAP_THRESHOLD, _LARGEST)
