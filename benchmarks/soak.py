"""Long runs of every optimizer: does memory stay where it is, and do the engines stay together?

    python -m benchmarks.soak --json benchmarks/results/soak.json

Each name is stepped by the eager engine, by another, and by the eager engine in float64, on the same gradients: 20,000
steps beside the compiled engine, as many as its slowness allows beside the Triton engine in Triton's interpreter. The
rate changes at every step, gradients are clipped at about every second, weight decay fades, AGR ends half-way, Adan
restarts. How far float32 strays from float64 says what rounding is; how far two engines stray from each other is held
against it. Every name has a process of its own. So that the eager engine steps tensors of a small model by themselves,
and others together, `SMALL` stands for its own number.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
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
from hf_winopt import OPTIMIZERS, create_optimizer
from hf_winopt.bench.table import markdown
from hf_winopt.engine import work
from hf_winopt.files import write_json
from hf_winopt.integrations.results import environment
from hf_winopt.optim import RuleOptimizer

STEPS = {"compile": 20_000, "triton": 40}

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


def options_of(name: str, steps: int) -> dict[str, Any]:
    """All that counts steps, and clipping; each has its moment in a run of so many steps."""
    known = OPTIMIZERS[name].options
    options = {"weight_decay": 0.01, "weight_decay_gamma": 1 - 2 / steps, "max_grad_norm": 100.0}
    if known.get("agr"):
        options["agr_steps"] = steps // 2
    if "restart_every" in known:
        options["restart_every"] = restart_every(steps)
    if "inverse_sqrt_lr" in known:
        options["inverse_sqrt_lr"] = True
    return options


def groups_of(name: str, params: Sequence[torch.nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """One group; two under LAMB, which takes biases and single numbers without decay, as is usual.

    Its trust ratio would only multiply a single number by 1 +- lr a step: it could never pass through 0.
    """
    if not OPTIMIZERS[name].rule.trust_ratio:
        return [{"params": params}]
    large, small = ([p for p in params if (p.ndim > 1) == wanted] for wanted in (True, False))
    return [{"params": large, "weight_decay": weight_decay}, {"params": small, "weight_decay": 0.0}]


def restart_every(steps: int) -> int:
    return steps * 3 // 20 + 1


def rate(name: str, t: int) -> float:
    return 1e-3 * OPTIMIZERS[name].lr_scale * (1 + 0.5 * math.cos(t))


class Run:
    """One optimizer on parameters of its own."""

    def __init__(self, name: str, start: Sequence[Tensor], backend: str, options: Mapping[str, Any]) -> None:
        self.params = [torch.nn.Parameter(z.clone()) for z in start]
        groups = groups_of(name, self.params, options["weight_decay"])
        self.optimizer: RuleOptimizer = create_optimizer(name, groups, backend=backend, **options)

    def step(self, gradients: Sequence[Tensor], lr: float) -> None:
        for p, g in zip(self.params, gradients):
            p.grad = g.to(p.dtype)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()

    def tensors(self, place: int) -> dict[str, Tensor]:
        """A parameter and what is kept of it, by name; in place of distances the sequences that they lead to."""
        p = self.params[place]
        state = {name: value for name, value in self.optimizer.state[p].items() if name != "step"}
        gap, y_gap = state.pop("x_gap", None), state.pop("y_gap", None)
        x = {} if gap is None else {"x": p.detach() - gap}
        y = {} if y_gap is None else {"y": x["x"] + y_gap}
        return {"z": p.detach(), **state, **x, **y}

    def counts(self) -> list[float]:
        return sorted({self.optimizer.state[p]["step"].item() for p in self.params})


class Apart:
    """How far runs have been from each other so far, by the type of the parameters.

    A difference is relative to the largest number that the tensor has held: a single number may pass through 0.
    """

    def __init__(self, problem: Problem) -> None:
        self._kinds = [str(dtype).removeprefix("torch.") for dtype in problem.dtypes]
        self._largest: dict[tuple[int, str], float] = {}
        self.engines = dict.fromkeys(self._kinds, 0.0)
        self.from_float64 = dict.fromkeys(self._kinds, 0.0)

    def look(self, eager: Run, other: Run, exact: Run) -> None:
        for place, kind in enumerate(self._kinds):
            ours, theirs = eager.tensors(place), other.tensors(place)
            for name, right in exact.tensors(place).items():
                largest = max(self._largest.get((place, name), 0.0), right.abs().max().item())
                self._largest[place, name] = largest
                mine, its = ours[name].double(), theirs[name].double()
                self._add(self.engines, kind, mine - its, largest)
                self._add(self.from_float64, kind, mine - right, largest)

    @staticmethod
    def _add(farthest: dict[str, float], kind: str, difference: Tensor, largest: float) -> None:
        relative = difference.abs().max().item() / (largest or 1.0)  # a restart leaves zeros
        farthest[kind] = relative if not relative <= farthest[kind] else farthest[kind]  # what is no number stays


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


def soak(name: str, engine: str, steps: int) -> dict[str, Any]:
    """Step `name` by the eager engine, by another and in float64."""
    # no bf16 beside Triton: its interpreter cuts float32 to bf16 where devices round
    dtypes = (torch.float32,) if engine == "triton" else (torch.float32, torch.bfloat16)
    problem, options = Problem(dtypes), options_of(name, steps)
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


def in_a_process(name: str, steps: Mapping[str, int]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.soak", "--one", name]
    command += [word for engine, number in steps.items() for word in (f"--{engine}-steps", str(number))]
    env = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr[-2000:]}")
    print(name, file=sys.stderr, flush=True)
    return {"name": name, **json.loads(done.stdout)}


def measured(path: Path, steps: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """The rows that are there already, of so many steps: a soak that was interrupted goes on."""
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    return {row["name"]: row for row in rows if all(row[engine]["steps"] == n for engine, n in steps.items())}


# what is made of the figures -----------------------------------------------------------------------------------------


def broken(row: Mapping[str, Any]) -> list[str]:
    """What a soak was to show of this name, and does not; nothing if all is well."""
    found = []
    for engine in STEPS:
        run, name = row[engine], f"{row['name']}, {engine}"
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
    heads = ["optimizer", "state, bytes", "tensors, bytes", "objects", "process, MiB"]
    heads += ["float32: compile to eager", "to float64", "bf16: compile to eager", "to float64"]
    heads += ["Triton to eager", "to float64"]
    lines = [
        [
            row["name"], *_memory(row["compile"]), *_two(row["compile"], "float32"), *_two(row["compile"], "bfloat16"),
            *_two(row["triton"], "float32"),
        ]
        for row in result["rows"]
    ]  # fmt: skip
    return markdown(heads, lines, aligned=False)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", metavar="NAME", help="step this one, in this process")
    parser.add_argument("--names", nargs="+", default=list(OPTIMIZERS), help="which (default: all)")
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
        print(json.dumps({engine: soak(arguments.one, engine, number) for engine, number in steps.items()}))
        return
    rows = measured(arguments.json, steps) if arguments.json else {}
    left = [name for name in arguments.names if name not in rows]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for row in pool.map(lambda name: in_a_process(name, steps), left):
            rows[row["name"]] = row
            result = {"rows": [rows[name] for name in OPTIMIZERS if name in rows], **environment("triton")}
            if arguments.json:
                write_json(arguments.json, result)
    print(table({"rows": [rows[name] for name in OPTIMIZERS if name in rows]}))
    if wrong := [sentence for row in rows.values() for sentence in broken(row)]:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
