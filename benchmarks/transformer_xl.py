"""Words per second of a Transformer-XL training step, beside the model of transformers 4.35.2 in another process.

    python -m benchmarks.transformer_xl --reference "PYTHON OF THE OTHER ENVIRONMENT" --json FILE
    python -m benchmarks.transformer_xl --cases base:60 --steps 18 --rounds 1 --json FILE    # ours alone, 20 steps
    python -m benchmarks.transformer_xl --report benchmarks/results/transformer_xl.json

Both take the same shapes, words of Zipf-like frequency, torch's fused AdamW, and carry the memory from step to step.
They run in turn, so that what else the machine does meets both.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

SHAPES: dict[str, dict[str, Any]] = {
    "base": {
        "sizes": {"n_layer": 16, "d_model": 410, "n_head": 10, "d_head": 41, "d_inner": 2100, "mem_len": 150},
        "vocab_size": 267735,
        "cutoffs": [20000, 40000, 200000],
        "segment": 150,
    },
    "small": {
        "sizes": {"n_layer": 4, "d_model": 128, "n_head": 4, "d_head": 32, "d_inner": 512, "mem_len": 32},
        "vocab_size": 20000,
        "cutoffs": [2000, 8000],
        "segment": 32,
    },
}


def measure(which: str, shapes: str, batch: int, steps: int) -> dict[str, Any]:
    """Seconds of each step after the first two, and the most memory that was held."""
    shape = SHAPES[shapes]
    torch.manual_seed(0)
    model = (ours if which == "ours" else theirs)(shape).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    mems, seconds = None, []
    for _ in range(steps + 2):
        # Rank r with frequency 1 / r, as words have it: most are in the head, a few in the rare clusters.
        ids = (shape["vocab_size"] ** torch.rand(batch, shape["segment"] + 1)).long() - 1
        start = time.perf_counter()
        loss, mems = step(which, model, ids, mems)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
    return {
        "seconds": seconds[2:],
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "loss": loss.item(),
    }


def ours(shape: dict[str, Any]) -> torch.nn.Module:
    from recipes.transformer_xl.configuration_transfo_xl import TransfoXLConfig
    from recipes.transformer_xl.modeling_transfo_xl import TransfoXLLMHeadModel

    return TransfoXLLMHeadModel(
        TransfoXLConfig(vocab_size=shape["vocab_size"], cutoffs=shape["cutoffs"], **shape["sizes"])
    )


def theirs(shape: dict[str, Any]) -> torch.nn.Module:
    import transformers
    from transformers import TransfoXLConfig, TransfoXLLMHeadModel

    assert transformers.__version__ == "4.35.2", transformers.__version__
    width = shape["sizes"]["d_model"]
    config = TransfoXLConfig(
        vocab_size=shape["vocab_size"],
        cutoffs=shape["cutoffs"],
        d_embed=width,
        div_val=1,
        clamp_len=-1,
        proj_share_all_but_first=False,
        same_length=False,
        **shape["sizes"],
    )
    return TransfoXLLMHeadModel(config)


def step(which: str, model: torch.nn.Module, ids: torch.Tensor, mems: Any) -> tuple[torch.Tensor, Any]:
    if which == "ours":
        output = model(ids[:, :-1], labels=ids, mems=mems)
    else:  # predicts the words of its own segment, all but the first
        output = model(ids[:, :-1], labels=ids[:, :-1], mems=mems, return_dict=True)
    return output.loss, output.mems


def compare(case: str, reference: str | None, steps: int, rounds: int) -> dict[str, Any]:
    """A row of the table: medians over all steps of all rounds."""
    shapes, batch = case.split(":")
    programs = {"ours": [sys.executable]} | ({"reference": ["env", *shlex.split(reference)]} if reference else {})
    found: dict[str, list[dict[str, Any]]] = {which: [] for which in programs}
    for _ in range(rounds):
        for which, program in programs.items():
            found[which].append(_run(program, which, shapes, int(batch), steps))
    row: dict[str, Any] = {"shapes": shapes, "batch": int(batch), "steps": steps, "rounds": rounds}
    for which, measured in found.items():
        seconds = statistics.median(second for one in measured for second in one["seconds"])
        row[which] = {
            "words_per_second": int(batch) * SHAPES[shapes]["segment"] / seconds,
            "seconds_per_step": seconds,
            "peak_gib": max(one["peak_bytes"] for one in measured) / 2**30,
            "parameters": measured[0]["parameters"],
        }
    if reference:
        row["ratio"] = row["ours"]["words_per_second"] / row["reference"]["words_per_second"]
    return row


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """As it stands in the recipe's README."""
    from hf_winopt.bench.table import markdown

    heads = ("shapes", "batch", "words/s", "GiB", "transformers 4.35.2: words/s", "GiB", "ratio")
    return markdown(
        heads,
        [
            [
                row["shapes"],
                str(row["batch"]),
                *(
                    cell
                    for which in ("ours", "reference")
                    for cell in (f"{row[which]['words_per_second']:.0f}", f"{row[which]['peak_gib']:.1f}")
                ),
                f"{row['ratio']:.2f}",
            ]
            for row in rows
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", help="the Python of an environment with transformers 4.35.2, with its variables")
    parser.add_argument("--cases", nargs="+", default=["base:4", "base:16", "small:16"], help="shapes:batch")
    parser.add_argument("--steps", type=int, default=6, help="that are timed, after two that are not")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--report", type=Path, help="print the table of such a file again, measure nothing")
    parser.add_argument("--measure", choices=("ours", "reference"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        shapes, batch = args.cases[0].split(":")
        print(json.dumps(measure(args.measure, shapes, int(batch), args.steps)))
        return
    if args.report:
        print(table(json.loads(args.report.read_text(encoding="utf-8"))["rows"]))
        return
    rows = [compare(case, args.reference, args.steps, args.rounds) for case in args.cases]
    if args.reference:
        print(table(rows))
    if args.json:
        from hf_winopt.files import write_json
        from hf_winopt.integrations.results import environment

        write_json(args.json, {"rows": rows, **environment()})


def _run(program: list[str], which: str, shapes: str, batch: int, steps: int) -> dict[str, Any]:
    options = ["--measure", which, "--cases", f"{shapes}:{batch}", "--steps", str(steps)]
    root = str(Path(__file__).resolve().parents[1])
    environ = os.environ | {"PYTHONPATH": root} if which == "ours" else os.environ
    command = [*program, str(Path(__file__).resolve()), *options]
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
