"""What the kernels become on a GPU, compiled for one that need not be there (a Hopper)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from hf_winopt import OPTIMIZERS

ROOT = Path(__file__).resolve().parents[3]


def printed_by(module, tmp_path_factory, *arguments):
    env = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    env["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
    env["TRITON_DEFAULT_FP_FUSION"] = "0"  # each launch says so itself; without this Triton 3.9 remarks on it
    run = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=env, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return json.loads(printed_by("tests.engine.triton.machine_code", tmp_path_factory))["kernels"]


def wide(kernel, kind):
    return sum(count for name, count in kernel["traffic"].items() if name.startswith(f"{kind}.global.v"))


@pytest.mark.parametrize(
    ("kernel", "loads", "stores"),
    [("adamw_win", 5, 4), ("adan", 6, 5), ("lamb_win first", 5, 2), ("lamb_win second", 4, 2), ("abs_sums", 2, 0)],
)
def test_memory_is_read_and_written_16_bytes_at_a_time_and_no_tensor_twice(kernel, loads, stores, found):
    """A block is 8 elements of float32 for each thread: two accesses for each tensor."""
    assert (wide(found[kernel], "ld"), wide(found[kernel], "st")) == (2 * loads, 2 * stores)


def test_unaligned_tensors_are_read_element_by_element(found):
    assert wide(found["adamw_win unaligned"], "ld") == 0


def test_bf16_is_rounded_to_the_nearest(found):
    assert all(convert.startswith("cvt.rn.") for convert in found["adamw_win bf16"]["to_bf16"])
    assert found["adamw_win bf16"]["to_bf16"]


def test_operations_are_not_contracted_registers_suffice_and_threads_exchange_nothing(found):
    for name, kernel in found.items():
        assert (kernel["local"], kernel["exchanges"]) == (0, 0), name
        if not name.startswith("coefficients"):  # whose powers are a library's
            assert kernel["contracted"] == 0, name


def test_another_learning_rate_gradient_or_set_of_parameters_compiles_nothing(tmp_path_factory):
    for name, new in json.loads(printed_by("tests.engine.triton.dry_launches", tmp_path_factory)).items():
        assert new[0] > 0 and len(new) > 16, name
        assert not any(new[1:]), (name, new)


@pytest.mark.parametrize("kernel", ["adamw_win compact", "adamw_win 8bit", "adan_win2 8bit bf16"])
def test_the_largest_of_a_block_is_found_within_a_warp(kernel, found):
    assert found[kernel]["waits"] == 0


AT_LEVELS = ("adamw_d", "adamw_win", "adan_win2", "lamb_win", "sgd_win", "adal")


@pytest.mark.parametrize(("names", "states"), [(tuple(OPTIMIZERS), ("float32",)), (AT_LEVELS, ("compact", "8bit"))])
def test_every_name_moves_the_bytes_that_it_says_and_no_others(names, states, tmp_path_factory, tmp_path):
    file = tmp_path / "figures.json"
    asked = ("--names", *names, "--states", *states, "--json", str(file))
    printed_by("benchmarks.traffic", tmp_path_factory, *asked)
    rows = json.loads(file.read_text())["rows"]
    every = product(names, states, ("float32", "bfloat16"))
    assert [(row["name"], row["state"], row["dtype"]) for row in rows] == list(every)
    for row in rows:
        assert row["counted"] == row["computed"], row
        assert row["launches"] <= 3
