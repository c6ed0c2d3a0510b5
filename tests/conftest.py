"""What all tests share: one thread and fixed seeds, so that small problems are quick and the same every time."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

if "HF_WINOPT_CACHE" not in os.environ:  # one for all processes of a run, whose first has no such variable
    os.environ["HF_WINOPT_CACHE"] = tempfile.mkdtemp(prefix="hf_winopt_tests_")
    atexit.register(shutil.rmtree, os.environ["HF_WINOPT_CACHE"], ignore_errors=True)

import pytest
import torch

if not torch.cuda.is_available():  # asked for when the kernels are imported
    os.environ.setdefault("TRITON_INTERPRET", "1")

from hypothesis import HealthCheck, settings

torch.set_num_threads(1)
# Nothing is left in the tree, and nothing hangs on how fast a machine is. "long" is for `make fuzz`.
OURS = settings(deadline=None, database=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ours", OURS, derandomize=True, max_examples=40)
settings.register_profile("long", OURS, max_examples=780)
settings.load_profile("ours")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
