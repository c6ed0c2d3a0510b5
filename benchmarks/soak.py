"""Long runs of every optimizer: does memory stay where it is, and do the engines stay together?

    python -m benchmarks.soak --json benchmarks/results/soak.json

Each name is stepped by the eager engine, by another, and by the eager engine in float64, on the same gradients: 20,000
steps beside the compiled engine, as many as its slowness allows beside the Triton engine in Triton's interpreter. The
rate changes at every step, gradients are clipped at about every second, weight decay fades, AGR ends half-way, Adan
restarts. How far float32 strays from float64 says what rounding is; how far two engines stray from each other is held
against it. So it is with state=compact and state=8bit, of one name of every family, on the same matrices turned so that
their rows are stored in blocks: there coding is what strays. Every name has a process of its own. So that the eager
engine steps tensors of a small model by themselves, and others together, `SMALL` stands for its own number.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from benchmarks.soak_problem import Problem
from benchmarks.soak_runs import Apart, Run, options_of, rate
from hf_winopt import OPTIMIZERS
from hf_winopt.bench.table import markdown
from hf_winopt.engine import work
from hf_winopt.files import write_json
from hf_winopt.integrations.results import environment

STEPS = {"compile": 20_000, "triton": 40}

LEVELS = ("float32", "compact", "8bit")

CODED = ("adamw_win", "lamb_win", "sgd_win2", "adan", "adan_win2_agr", "adal_win")
"""What is stepped at other levels of state than float32, too."""

SMALL = 4100
"""For `engine.work.SMALL`."""

MARKS = (0.05, 0.25, 0.5, 1.0)
"""Shares of a run after which figures are taken; the first is after all that happens once."""

CHECKS = 200
"""How often in a run the engines are compared."""


LIMIT = 2.0
"""Engines may be so many times as far apart as float32 is from float64, at every mark."""

MOST_GROWTH = {"state_bytes": 0, "tensor_bytes": 0, "objects": 1000, "rss": 4 << 20}
"""Between the first mark and the last. A leak of one object a step would be 19,000; of the smallest tensor, MiB."""


def memory(runs: Sequence[Run]) -> dict[str, int]:
    """What is held now: by the optimizers, by all tensors, by Python, by the process."""
    gc.collect()
    objects = gc.get_objects()
    storages = {each.untyped_storage() for each in objects if type(each) in (Tensor, torch.nn.Parameter)}
    return {
        "state_bytes": sum(run.optimizer.state_bytes() for run in runs),
        "tensor_bytes": sum({each.data_ptr(): each.nbytes() for each in storages}.values()),
        "objects": len(objects),
        "rss": psutil.Process().memory_info().rss,
    }


def soak(name: str, engine: str, steps: int, level: str = "float32") -> dict[str, Any]:
    """Step `name` by the eager engine, by another and in float64."""
    # no bf16 beside Triton: its interpreter cuts float32 to bf16 where devices round
    dtypes = (torch.float32,) if engine == "triton" else (torch.float32, torch.bfloat16)
    problem = Problem(dtypes, turned=level != "float32")
    options = {**options_of(name, steps), "state": level}
    eager, other = (Run(name, problem.start, backend, options) for backend in ("eager", engine))
    exact = Run(name, [z.double() for z in problem.start], "eager", options)
    runs, apart, marks = (eager, other, exact), Apart(problem), []
    at = {round(share * steps) for share in MARKS}
    for t in range(1, steps + 1):
        gradients = problem.gradients([p.detach() for p in exact.params])
        for run in runs:
            run.step(gradients, rate(name, t))
        if t % max(1, steps // CHECKS) == 0 or t in at:
            apart.look(*runs)
        if t in at:
            far = {"engines_apart": dict(apart.engines), "from_float64": dict(apart.from_float64)}
            marks.append({"step": t, **far, **memory(runs)})
    return {"steps": steps, "counts": [run.counts() for run in runs], "marks": marks}


def engines_of(level: str) -> tuple[str, ...]:
    """What is held beside the eager engine: Triton's interpreter cuts float32 to bf16, which `compact` stores."""
    return tuple(engine for engine in STEPS if (engine, level) != ("triton", "compact"))


def in_a_process(name: str, level: str, steps: Mapping[str, int]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.soak", "--one", name, "--levels", level]
    command += [word for engine, number in steps.items() for word in (f"--{engine}-steps", str(number))]
    env = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name}, {level}: {done.stderr[-2000:]}")
    print(name, level, file=sys.stderr, flush=True)
    return {"name": name, "level": level, **json.loads(done.stdout)}


def cases(names: Sequence[str], levels: Sequence[str]) -> list[tuple[str, str]]:
    """What is stepped, in order."""
    return [(name, level) for level in levels for name in names if level == "float32" or name in CODED]


def measured(path: Path, steps: Mapping[str, int]) -> dict[tuple[str, str], dict[str, Any]]:
    """The rows that are there already, of so many steps: a soak that was interrupted goes on."""
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    return {
        (row["name"], row["level"]): row
        for row in rows
        if all(row[engine]["steps"] == steps[engine] for engine in engines_of(row["level"]))
    }


# what is made of the figures -----------------------------------------------------------------------------------------


def broken(row: Mapping[str, Any]) -> list[str]:
    """What a soak was to show of this name, and does not; nothing if all is well."""
    found = []
    for engine in engines_of(row["level"]):
        run, name = row[engine], f"{row['name']}, {row['level']}, {engine}"
        expected = counted(row["name"], run["steps"])
        if run["counts"] != [[expected]] * 3:
            found.append(f"{name}: counts of steps are {run['counts']}, not {expected}")
        for mark in run["marks"]:
            for kind, apart in mark["engines_apart"].items():
                rounding = mark["from_float64"][kind]
                if apart is None or rounding is None or not apart <= LIMIT * rounding:  # null is what is no number
                    found.append(f"{name}: the engines are too far apart at step {mark['step']} in {kind}")
        first, last = run["marks"][0], run["marks"][-1]
        for what, most in MOST_GROWTH.items():
            if last[what] - first[what] > most:
                found.append(f"{name}: {what} grew from {first[what]} to {last[what]}")
    return found


def counted(name: str, steps: int) -> float:
    """What a step count is after so many steps: Adan's begins anew."""
    every = options_of(name, steps).get("restart_every")
    return float((steps - 1) % every + 1 if every else steps)


def _two(run: Mapping[str, Any], kind: str) -> list[str]:
    last = run["marks"][-1]
    apart, from_float64 = last["engines_apart"][kind], last["from_float64"][kind]
    return ["equal" if apart == 0 else f"{apart:.1e}", f"{from_float64:.1e}"]


def _memory(run: Mapping[str, Any]) -> list[str]:
    first, last = run["marks"][0], run["marks"][-1]
    grown = (last["state_bytes"] - first["state_bytes"], last["tensor_bytes"] - first["tensor_bytes"])
    return [
        *map(str, grown),
        f"{last['objects'] - first['objects']:+d}",
        f"{(last['rss'] - first['rss']) / 2**20:+.1f}",
    ]


def table(result: Mapping[str, Any]) -> str:
    heads = ["optimizer", "level", "state, bytes", "tensors, bytes", "objects", "process, MiB"]
    heads += ["float32: compile to eager", "to float64", "bf16: compile to eager", "to float64"]
    heads += ["Triton to eager", "to float64"]
    lines = [
        [
            row["name"], row["level"], *_memory(row["compile"]), *_two(row["compile"], "float32"),
            *_two(row["compile"], "bfloat16"), *(_two(row["triton"], "float32") if "triton" in row else "--"),
        ]
        for row in result["rows"]
    ]  # fmt: skip
    return markdown(heads, lines, aligned=False)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", metavar="NAME", help="step this one, in this process")
    parser.add_argument("--names", nargs="+", default=list(OPTIMIZERS), help="which (default: all)")
    parser.add_argument("--levels", nargs="+", default=LEVELS, choices=LEVELS, help="of state (default: all)")
    for engine, number in STEPS.items():
        parser.add_argument(f"--{engine}-steps", type=int, default=number, help=f"(default: {number})")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side (default: 1)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--report", type=Path, help="only print the tables of figures written before")
    arguments = parser.parse_args(argv)
    if arguments.report:
        print(table(json.loads(arguments.report.read_text(encoding="utf-8"))))
        return
    steps = {engine: getattr(arguments, f"{engine}_steps") for engine in STEPS}
    if arguments.one:
        torch.set_num_threads(1)
        work.SMALL = SMALL
        (level,) = arguments.levels
        print(json.dumps({e: soak(arguments.one, e, steps[e], level) for e in engines_of(level)}))
        return
    rows = measured(arguments.json, steps) if arguments.json else {}
    left = [case for case in cases(arguments.names, arguments.levels) if case not in rows]
    everything = cases(list(OPTIMIZERS), LEVELS)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for row in pool.map(lambda case: in_a_process(*case, steps), left):
            rows[row["name"], row["level"]] = row
            result = {"rows": [rows[case] for case in everything if case in rows], **environment("triton")}
            if arguments.json:
                write_json(arguments.json, result)
    print(table({"rows": [rows[case] for case in everything if case in rows]}))
    if wrong := [sentence for row in rows.values() for sentence in broken(row)]:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
