"""The loops of `loops.py` as a shared library: compiled with the options that PyTorch has for its own, and called."""

from __future__ import annotations

import ctypes
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from .loops import CHUNK

HEADER = Path(__file__).with_name("vectors.h")

_FLAGS = ("-ffp-contract=fast", "-ftree-loop-vectorize", "-Wno-psabi")
"""Beside PyTorch's: a product and a sum may be one instruction, and where loops read bytes they become vectors."""

_OF_GCC = ("-fschedule-insns", "-fsched-pressure")
"""A block is some thousand instructions: in the order they are written a processor does not look far enough ahead."""


def build(text: str, path: Path) -> None:
    """Compile a source to that path.

    Raises:
        RuntimeError: there is no compiler, or it fails.
    """
    from torch._inductor import cpp_builder, cpu_vec_isa

    with tempfile.TemporaryDirectory(prefix="hf_winopt_") as folder:
        file = Path(folder, "loops.cpp")
        file.write_text(text, encoding="utf-8")
        shutil.copy(HEADER, folder)
        flags = [*_FLAGS, *(_OF_GCC if cpp_builder.is_gcc() else ())]
        options = cpp_builder.CppTorchOptions(vec_isa=cpu_vec_isa.pick_vec_isa(), warning_all=False, extra_flags=flags)
        builder = cpp_builder.CppBuilder(name="loops", sources=str(file), BuildOption=options, output_dir=folder)
        builder.build()
        shutil.copyfile(builder.get_target_file_path(), path)


class Library:
    """A pass over tensors in blocks; called with them it steps them in place and returns its sums, float64.

    Args:
        path: of the library.

    Raises:
        RuntimeError: the file is none.
    """

    def __init__(self, path: Path) -> None:
        try:
            library = ctypes.CDLL(str(path))
            self._run = library.run
            self._results = ctypes.c_int.in_dll(library, "results").value
        except (OSError, AttributeError, ValueError) as error:
            raise RuntimeError(f"{path} cannot be loaded: {error}") from error
        self._run.restype = None
        self._run.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int]

    def __call__(self, tensors: list[Tensor]) -> Sequence[Tensor]:
        blocks = tensors[1].shape[0]
        chunks = -(-blocks // CHUNK)
        sums = torch.zeros(chunks, self._results, dtype=torch.float64, device="cpu")
        addresses = [tensor.data_ptr() for tensor in tensors]
        if 0 in addresses:
            raise RuntimeError(f"tensor {addresses.index(0)} of a step has no memory: {tensors[addresses.index(0)]!r}")
        self._run(
            (ctypes.c_void_p * len(addresses))(*addresses),
            sums.data_ptr(),
            blocks,
            max(min(torch.get_num_threads(), chunks), 1),
        )
        return sums.sum(0).unbind() if self._results else ()
