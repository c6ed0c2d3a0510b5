"""Compile the kernels for a GPU that need not be there, and print as JSON what became of their loads and stores.

    python -m tests.engine.triton.machine_code

A program of its own, since within the tests the kernels belong to the interpreter.
"""

from __future__ import annotations

import collections
import json
import os
import re
import sys
from dataclasses import replace
from typing import Any

os.environ.pop("TRITON_INTERPRET", None)

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from hf_winopt.engine.triton import batch, coefficients, encodings, kernels, table
from hf_winopt.rules import Rule

HOPPER = GPUTarget("cuda", 90, 32)
POINTERS = {
    "table": "*i64", "upload": "*i64", "chunks": "*i64", "coefs": "*fp32", "norm": "*fp64", "squares": "*fp64",
    "grad_scale": "*fp32", "found_inf": "*fp32", "of_g": "*fp32", "of_w": "*fp32", "of_r": "*fp32",
    "sums": "*fp64", "parts": "*fp32", "first": "i32", "hyper_at": "i32", "n_squares": "i32",
    "parts_row": "i32", "sums_row": "i32",
}  # fmt: skip


def compiled(kernel: Any, target: GPUTarget = HOPPER, **constants: Any) -> Any:
    signature = {name: POINTERS[name] for name in kernel.arg_names if name not in constants}
    return triton.compile(ASTSource(kernel, signature, constants), target=target, options=batch.EXACT)


def traffic(assembly: str) -> dict[str, int]:
    """Instructions that read and write global memory, by kind and width."""
    return dict(collections.Counter(re.findall(r"(?:ld|st)\.global\.[\w.]+", assembly)))


def step(moments: str, movement: str, state: str = "float32", **other: Any) -> Any:
    """At a level of state for parameters in blocks, of all lengths of rows, beside others."""
    accelerated = movement in ("win", "win2")
    rule = Rule("none", moments, movement if accelerated else "none", "proximal", state=state)
    constants = {
        "PASS": "whole", "TRANSFORM": "none", "MOMENTS": moments, "MOVEMENT": movement, "DECAY": "proximal",
        "GAP": len(rule.moments_kind.state_names), "KEPT": encodings.kept(replace(rule, state="float32")),
        "KEPT_IN_BLOCKS": encodings.kept(rule) if rule.is_blocked else 0, "ODD": rule.is_blocked,
        "Z_TYPE": tl.float32, "G_TYPE": tl.float32, "TYPE": tl.float32,
        "ALIGNED": True, "CHUNK": table.CHUNK, "BLOCK": table.BLOCK, "COMPLETE": False,
    }  # fmt: skip
    return compiled(kernels.step, **(constants | other))


def main() -> None:
    half = {"Z_TYPE": tl.bfloat16, "G_TYPE": tl.bfloat16}
    two = {"CHUNK": table.SPAN, "DECAY": "in_update", "TRANSFORM": "agr"}
    every = {
        "adamw_win": step("adam", "win"),
        "adamw_win unaligned": step("adam", "win", ALIGNED=False),
        "adamw_win bf16": step("adam", "win", **half),
        "adan": step("adan", "proximal"),
        "nadamw 8bit": step("nadam", "decoupled", "8bit"),
        "adan_win2 bf16": step("adan", "win2", **half),
        "adamw_win compact": step("adam", "win", "compact"),
        "adamw_win 8bit": step("adam", "win", "8bit"),
        "adan_win2 8bit bf16": step("adan", "win2", "8bit", **half),
        "lamb_win 8bit first": step("adam", "win", "8bit", PASS="first", **two),
        "lamb_win first": step("adam", "win", PASS="first", **two),
        "lamb_win second": step("adam", "win", PASS="second", **two),
        "lamb_win second, added up": step("adam", "win", PASS="second", **{**two, "COMPLETE": True}),
        "add_up": compiled(kernels.add_up, BLOCK=table.ADDED),
        "sgd nesterov": step("nesterov", "win"),
        "squares": compiled(
            kernels.squares, G_TYPE=tl.float32, TYPE=tl.float32, ALIGNED=True, CHUNK=table.SPAN, BLOCK=table.BLOCK,
            SCALED=True,
        ),
        "abs_sums": compiled(
            kernels.abs_sums, Z_TYPE=tl.float32, G_TYPE=tl.float32, TYPE=tl.float32, ALIGNED=True, CHUNK=table.SPAN,
            BLOCK=table.BLOCK, DECAY="l2",
        ),
        "coefficients": compiled(
            coefficients.coefficients, TRANSFORM="agr", MOMENTS="adan", MOVEMENT="win2", DECAY="l2", NORMED=True,
            SKIPS=True, SCALED=True, STOPPABLE=True, BLOCK=table.BLOCK,
        ),
        "coefficients nadam": compiled(
            coefficients.coefficients, TRANSFORM="none", MOMENTS="nadam", MOVEMENT="decoupled", DECAY="decoupled",
            NORMED=False, SKIPS=False, SCALED=False, STOPPABLE=False, BLOCK=table.BLOCK,
        ),
    }  # fmt: skip
    found = {
        name: {
            "traffic": traffic(kernel.asm["ptx"]),
            "to_bf16": sorted(set(re.findall(r"cvt\.[\w.]+\.bf16\w*\.f32", kernel.asm["ptx"]))),
            "contracted": len(re.findall(r"\bfma\.", kernel.asm["ptx"])),
            "local": len(re.findall(r"\b(?:ld|st)\.local", kernel.asm["ptx"])),
            "exchanges": kernel.asm["ttgir"].count("convert_layout"),
            "waits": kernel.asm["ptx"].count("bar.sync"),
        }
        for name, kernel in every.items()
    }
    json.dump({"triton": triton.__version__, "kernels": found}, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
