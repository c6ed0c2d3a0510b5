"""The AdamW paper's Table 1 in small: spectra, the term of Corollary 3 and test accuracy, weight decay tuned alike.

    python -m benchmarks.adamw_paper --data FOLDER --out FOLDER [--json FILE] [--report FILE]

A small ViT and a small ResNet on CIFAR-10, trained by AdamW, AdamW-D, l2-Adam and l2-Adam-D through
`recipes/vit/run_vit.py`, at one learning rate. Each optimizer's weight decay is chosen among equally many by the
validation accuracy on a seed of its own; where one's best is at the end of its grid, all grids go on by one value. What
counts are other seeds. The fading variants fade to 1/e over the training: the paper's 0.99999 a step would be without
effect in so few. What has been trained is not trained again: an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hf_winopt.analysis.hessian import hessian_spectrum
from hf_winopt.analysis.spectrum import Spectrum
from hf_winopt.analysis.tasks import load_split, load_task, own_loss
from hf_winopt.bench.table import markdown
from hf_winopt.compare.statistics import judge
from hf_winopt.files import write_json
from hf_winopt.integrations.results import environment
from hf_winopt.public import ROOT

MODELS = {
    "ViT": [],
    "ResNet": [
        "--model_type", "resnet", "--config_overrides",
        '{"embedding_size": 16, "hidden_sizes": [16, 32, 64], "depths": [1, 1, 1], "layer_type": "basic"}',
    ],
}  # fmt: skip
OPTIMIZERS = {"AdamW": "adamw_d", "AdamW-D": "adamw_d", "l2-Adam": "adam_l2", "l2-Adam-D": "adam_l2_d"}
WEIGHT_DECAYS = {"decoupled": (0.1, 0.3, 0.9), "l2": (3e-4, 9e-4, 2.7e-3)}
RATIO = 3
FURTHER = 1
"""How often the grids may go on."""

TUNING_SEED = 1000
SEEDS = (1, 2, 3)
LEARNING_RATE = 1e-3
BATCH = 128
RHO = 1.0

Kind = tuple[str, str]
"""A model and an optimizer."""


def decay_of(optimizer: str) -> str:
    return "l2" if optimizer.startswith("l2") else "decoupled"


@dataclass(frozen=True)
class Run:
    """One training."""

    model: str
    optimizer: str
    weight_decay: float
    seed: int

    @property
    def decay(self) -> str:
        return decay_of(self.optimizer)

    def folder(self, out: Path) -> Path:
        return out / f"{self.model}-{self.optimizer}-{self.weight_decay:g}-{self.seed}"

    def command(self, data: str, out: Path, steps: int) -> list[str]:
        gamma = 1 - 1 / steps if self.optimizer.endswith("-D") else 1.0
        return [
            sys.executable, str(ROOT / "recipes/vit/run_vit.py"), str(ROOT / "recipes/vit/configs/cifar10_small.yaml"),
            "--dataset_name", data, "--output_dir", str(self.folder(out)), "--overwrite", "true",
            "--optim", OPTIMIZERS[self.optimizer], "--optim_args", f"weight_decay_gamma={gamma}",
            "--learning_rate", str(LEARNING_RATE), "--weight_decay", str(self.weight_decay),
            "--per_device_train_batch_size", str(BATCH), "--max_steps", str(steps), "--eval_strategy", "no",
            "--seed", str(self.seed), "--use_cpu", "true", "--disable_tqdm", "true", *MODELS[self.model],
        ]  # fmt: skip


def results(run: Run, data: str, out: Path, steps: int) -> dict[str, Any]:
    """What a training found; it is made where it is not there yet."""
    found = run.folder(out) / "results.json"
    if not found.exists():
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(run.command(data, out, steps), env=env, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{run}: {done.stderr[-2000:]}")
        print(run, file=sys.stderr, flush=True)
    return json.loads(found.read_text(encoding="utf-8"))


def accuracy(found: dict[str, Any], split: str) -> float:
    return float(found["metrics"][split]["accuracy"])


def spectrum_of(run: Run, data: str, out: Path, samples: int) -> Spectrum:
    """Of the loss on the first test images."""
    task = load_task(str(run.folder(out)), load_split(data, None, "test", samples), 64, "cpu")
    held = len(task.batches)
    return hessian_spectrum(task.model, task.batches, own_loss, probes=3, steps=40, held=held, progress=False)


def trained(runs: Sequence[Run], data: str, out: Path, steps: int, jobs: int) -> dict[Run, dict[str, Any]]:
    with ThreadPoolExecutor(jobs) as pool:
        return dict(zip(runs, pool.map(lambda run: results(run, data, out, steps), runs)))


def tuning(data: str, out: Path, steps: int, jobs: int) -> dict[Kind, dict[float, float]]:
    """The validation accuracy of each weight decay that was tried."""
    grids: dict[Kind, list[float]] = {
        (model, optimizer): list(WEIGHT_DECAYS[decay_of(optimizer)]) for model in MODELS for optimizer in OPTIMIZERS
    }
    for further in range(FURTHER + 1):
        runs = [Run(*kind, weight_decay, TUNING_SEED) for kind, grid in grids.items() for weight_decay in grid]
        found = trained(runs, data, out, steps, jobs)
        seen = {
            kind: {wd: accuracy(found[Run(*kind, wd, TUNING_SEED)], "validation") for wd in grid}
            for kind, grid in grids.items()
        }
        if further == FURTHER or not any(best(seen[kind]) in (grid[0], grid[-1]) for kind, grid in grids.items()):
            break
        for kind, grid in grids.items():
            upwards = grid.index(best(seen[kind])) > (len(grid) - 1) / 2
            grid[:] = [*grid, grid[-1] * RATIO] if upwards else [grid[0] / RATIO, *grid]
    return seen


def best(seen: Mapping[float, float]) -> float:
    return max(seen, key=lambda weight_decay: seen[weight_decay])


def measure(data: str, out: Path, steps: int, samples: int, jobs: int) -> dict[str, Any]:
    """Tune, train on fresh seeds, and look at what came of it."""
    tuned = tuning(data, out, steps, jobs)
    final = [Run(*kind, best(seen), seed) for kind, seen in tuned.items() for seed in SEEDS]
    found = trained(final, data, out, steps, jobs)
    return {
        "tuning": [
            {"model": model, "optimizer": optimizer, "weight_decay": wd, "validation_accuracy": value}
            for (model, optimizer), seen in tuned.items()
            for wd, value in seen.items()
        ],
        "rows": [row(run, found[run], spectrum_of(run, data, out, samples)) for run in final],
        "settings": {"rho": RHO, "steps": steps, "lr": LEARNING_RATE, "batch": BATCH, "samples": samples},
    }


def row(run: Run, found: dict[str, Any], spectrum: Spectrum) -> dict[str, Any]:
    term = spectrum.generalization_term(
        lr=LEARNING_RATE, weight_decay=run.weight_decay, batch_size=BATCH, rho=RHO, decay=run.decay
    )
    return {
        **asdict(run),
        "test_accuracy": accuracy(found, "test"),
        "err": term.per_dimension,
        "share_below_1": term.share_below_1,
        "share_at_floor": term.share_at_floor,
        "share_negative": spectrum.share_negative,
        "singular_in_0_1": spectrum.share(-1, 1),
        "top_eigenvalue": spectrum.top_eigenvalues[0].item(),
        "trace": spectrum.trace,
        "trace_error": spectrum.trace_error,
    }


def spread(values: Iterable[float], form: str) -> str:
    values = list(values)
    return f"{statistics.mean(values):{form}} ± {statistics.stdev(values):{form}}"


def table(result: Mapping[str, Any]) -> str:
    """Mean and standard deviation over the seeds."""
    lines = []
    for model, optimizer, mine in of_each(result["rows"]):
        columns = (("err", ".3f"), ("top_eigenvalue", ".3g"), ("trace", ".3g"))
        tried = {r["weight_decay"] for r in result["tuning"] if (r["model"], r["optimizer"]) == (model, optimizer)}
        at_end = mine[0]["weight_decay"] in (min(tried), max(tried))
        lines.append(
            (
                model,
                optimizer,
                f"{mine[0]['weight_decay']:.2g}{' (end of its grid)' if at_end else ''}",
                spread((100 * row["test_accuracy"] for row in mine), ".1f"),
                *(spread((row[name] for row in mine), form) for name, form in columns),
                *(
                    f"{100 * statistics.mean(row[name] for row in mine):.1f} %"
                    for name in ("singular_in_0_1", "share_below_1")
                ),
            )
        )
    head = ("model", "optimizer", "weight decay", "test accuracy, %", "err", "largest eigenvalue", "trace")
    return markdown((*head, "singular values in [0, 1]", "x < 1"), lines)


def differences(result: Mapping[str, Any]) -> str:
    """Of each optimizer from AdamW, seed by seed: the mean, its 95 % interval and the word for it."""
    lines = []
    for model, optimizer, mine in of_each(result["rows"]):
        if optimizer == next(iter(OPTIMIZERS)):
            base = mine
            continue
        said = []
        for name, factor, less in (("test_accuracy", 100, False), ("err", 1, True)):
            found = [factor * (row[name] - other[name]) for row, other in zip(mine, base)]
            verdict = judge(found, less_is_better=less)
            within = verdict.interval
            said.append(
                f"{within.mean:+.2f} [{within.low:+.2f}, {within.high:+.2f}], {verdict.word}"
                if within
                else verdict.word
            )
        lines.append((model, optimizer, *said))
    return markdown(("model", "optimizer", "test accuracy beside AdamW's, %", "err beside AdamW's"), lines)


def of_each(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    """The rows of a model's optimizer, seed by seed."""
    for model in MODELS:
        for optimizer in OPTIMIZERS:
            yield model, optimizer, [row for row in rows if (row["model"], row["optimizer"]) == (model, optimizer)]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="CIFAR-10, in a folder or on the Hub")
    parser.add_argument("--out", type=Path, help="where the trainings go")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--samples", type=int, default=512, help="test images that the Hessian is taken over")
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--report", type=Path, help="only print the table of figures written before")
    arguments = parser.parse_args(argv)
    if arguments.report:
        report(json.loads(arguments.report.read_text(encoding="utf-8")))
        return
    if not (arguments.data and arguments.out):
        parser.error("--data and --out must be given")
    result = measure(arguments.data, arguments.out, arguments.steps, arguments.samples, arguments.jobs)
    result |= environment()
    if arguments.json:
        write_json(arguments.json, result)
    report(result)


def report(result: Mapping[str, Any]) -> None:
    print(table(result), differences(result), sep="\n\n")


if __name__ == "__main__":
    main()
