"""Time of one optimizer step on the shapes of BERT-base, beside torch's AdamW in the same process.

    python -m benchmarks.step_time --json benchmarks/results/step_time.json
    python -m benchmarks.step_time --report benchmarks/results/step_time.json

Each optimizer is measured in rounds; a round steps torch's fused AdamW, torch's foreach AdamW and ours, eager and
compiled, one after the other on the same parameters. A ratio is the median over rounds of the ratio within a round.
Measure on an idle machine: beside another process torch's fused AdamW can take many times longer.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

import hf_winopt

BASELINES = ("fused", "foreach")
BACKENDS = ("eager", "compile")


def bert_base_shapes() -> Iterator[tuple[int, ...]]:
    """The 201 parameters of `BertForSequenceClassification` at its base size, 109.5 M elements."""
    width, inner = 768, 3072
    yield from ((30522, width), (512, width), (2, width), (width,), (width,))
    for _ in range(12):
        for _ in range(4):
            yield from ((width, width), (width,))
        yield from ((width,), (width,), (inner, width), (inner,), (width, inner), (width,), (width,), (width,))
    yield from ((width, width), (width,), (2, width), (2,))


def timed(step: Callable[[], Any]) -> float:
    """Milliseconds of one call, the device's work included."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start)


def measure(name: str, params: list[torch.Tensor], baselines: dict[str, Any], rounds: int, backends: list[str]) -> list:
    """Rows for one name: medians, ratios within rounds, bytes."""
    steps = {key: optimizer.step for key, optimizer in baselines.items()}
    ours = {}
    for backend in backends:
        ours[backend] = hf_winopt.create_optimizer(name, params, lr=1e-6, weight_decay=0.01, backend=backend)
        steps[backend] = ours[backend].step
    for step in (*steps.values(), *steps.values()):  # state is made, rules are compiled
        step()
    samples: dict[str, list[float]] = {key: [] for key in steps}
    for _ in range(rounds):
        for key, step in steps.items():
            samples[key].append(timed(step))
    rows = []
    for key, values in samples.items():
        row: dict[str, Any] = {"name": name if key in ours else f"torch AdamW {key}", "backend": key}
        row |= {"median_ms": statistics.median(values), "min_ms": min(values), "max_ms": max(values)}
        for base in BASELINES:
            row[f"ratio_{base}"] = statistics.median(a / b for a, b in zip(values, samples[base]))
        if key in ours:
            row |= {
                "bytes_per_param": ours[key].bytes_per_param(),
                "state_bytes": ours[key].state_bytes(),
            }
        rows.append(row)
    return rows


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        cpu = next(
            (li.split(":")[1].strip() for li in info.read_text().splitlines() if li.startswith("model name")), cpu
        )
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "hf_winopt": hf_winopt.__version__,
    }


def run(names: list[str], backends: list[str], rounds: int) -> dict[str, Any]:
    """Measure every name and gather the result."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    params = [torch.nn.Parameter(0.02 * torch.randn(shape, device=device)) for shape in bert_base_shapes()]
    for p in params:
        p.grad = 1e-3 * torch.randn_like(p)
    baselines = {
        key: torch.optim.AdamW(params, lr=1e-6, weight_decay=0.01, **{key: True}) for key in BASELINES
    }  # fmt: skip
    rows = []
    for name in names:
        rows += measure(name, params, baselines, rounds, backends)
        print(table(rows[-len(backends) :], header=name == names[0]), flush=True)
        gc.collect()
    return {
        "shapes": "bert-base",
        "tensors": len(params),
        "elements": sum(p.numel() for p in params),
        "rounds": rounds,
        "machine": machine(),
        "rows": rows,
    }


def table(rows: list[dict[str, Any]], header: bool = True) -> str:
    """A Markdown table; torch's own rows are the medians over all rounds of all names."""
    lines = []
    if header:
        lines += [
            "| optimizer | backend | ms | x fused | x foreach | bytes/param |",
            "|---|---|---|---|---|---|",
        ]
    for row in rows:
        ratios = " | ".join(f"{row[f'ratio_{base}']:.2f}" for base in BASELINES)
        own = f"{row['bytes_per_param']:.0f}" if "bytes_per_param" in row else "28"
        lines.append(f"| {row['name']} | {row['backend']} | {row['median_ms']:.0f} | {ratios} | {own} |")
    return "\n".join(lines)


def report(result: dict[str, Any], names: list[str]) -> str:
    """The result as Markdown: torch's optimizers, and ours of these names."""
    rows = result["rows"]
    torch_rows = []
    for base in BASELINES:
        mine = [row for row in rows if row["backend"] == base]
        torch_rows.append({**mine[0], **{
            key: statistics.median(row[key] for row in mine) for key in ("median_ms", "ratio_fused", "ratio_foreach")
        }})  # fmt: skip
    m = result["machine"]
    head = (
        f"{result['shapes']}, {result['elements'] / 1e6:.1f} M float32 parameters in {result['tensors']} tensors; "
        f"{m['device']}, {m['cpu']}, {m['threads']} threads; torch {m['torch']}, median of {result['rounds']} rounds\n"
    )
    return head + "\n" + table(torch_rows + [row for row in rows if row["name"] in names])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", nargs="+", default=list(hf_winopt.OPTIMIZERS), help="optimizers (default: all)")
    parser.add_argument("--backends", nargs="+", default=list(BACKENDS), help="engines (default: eager compile)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds per optimizer (default: 9)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument(
        "--report", type=Path, metavar="JSON", help="print the table of earlier figures, measure nothing"
    )
    args = parser.parse_args()
    if args.report:
        print(report(json.loads(args.report.read_text()), args.names))
        return
    result = run(args.names, args.backends, args.rounds)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    print("\n" + report(result, args.names))


if __name__ == "__main__":
    main()
