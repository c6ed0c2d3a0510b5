"""The AdamW paper's Table 1 in small: spectra, the term of Corollary 3 and test accuracy, weight decay tuned alike.

    python -m benchmarks.adamw_paper --data FOLDER --out FOLDER [--json FILE] [--report FILE]

A small ViT and a small ResNet on CIFAR-10, trained by AdamW, AdamW-D, l2-Adam and l2-Adam-D through
`recipes/vit/run_vit.py`. Each optimizer's weight decay is chosen among equally many by the validation accuracy on a
seed of its own; what counts are other seeds. The fading variants fade to 1/e over the training: the paper's 0.99999 a
step would be without effect in so few. What has been trained is not trained again: an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hf_winopt.analysis.hessian import hessian_spectrum
from hf_winopt.analysis.spectrum import Spectrum
from hf_winopt.analysis.tasks import load_split, load_task, own_loss
from hf_winopt.bench.table import markdown
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
WEIGHT_DECAYS = {"decoupled": (0.01, 0.1, 0.5), "l2": (1e-4, 1e-3, 1e-2)}
TUNING_SEED = 1000
SEEDS = (1, 2, 3)
LEARNING_RATE = 1e-3
BATCH = 128
RHO = 1.0


@dataclass(frozen=True)
class Run:
    """One training."""

    model: str
    optimizer: str
    weight_decay: float
    seed: int

    @property
    def decay(self) -> str:
        return "l2" if self.optimizer.startswith("l2") else "decoupled"

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
    return hessian_spectrum(task.model, task.batches, own_loss, probes=3, steps=40, progress=False)


def measure(data: str, out: Path, steps: int, samples: int, jobs: int) -> list[dict[str, Any]]:
    """Tune, train on fresh seeds, and look at what came of it."""
    kinds = [(model, optimizer) for model in MODELS for optimizer in OPTIMIZERS]
    tuning = [
        Run(model, optimizer, wd, TUNING_SEED)
        for model, optimizer in kinds
        for wd in WEIGHT_DECAYS["l2" if optimizer.startswith("l2") else "decoupled"]
    ]
    with ThreadPoolExecutor(jobs) as pool:
        tuned = dict(zip(tuning, pool.map(lambda run: results(run, data, out, steps), tuning)))
        best = {
            (model, optimizer): max(
                (run for run in tuning if (run.model, run.optimizer) == (model, optimizer)),
                key=lambda run: accuracy(tuned[run], "validation"),
            ).weight_decay
            for model, optimizer in kinds
        }
        final = [Run(model, optimizer, best[model, optimizer], seed) for model, optimizer in kinds for seed in SEEDS]
        found = dict(zip(final, pool.map(lambda run: results(run, data, out, steps), final)))
    return [row(run, found[run], spectrum_of(run, data, out, samples)) for run in final]


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
        "share_in_0_1": spectrum.share(0, 1),
        "top_eigenvalue": spectrum.top_eigenvalues[0].item(),
        "trace": spectrum.trace,
        "trace_error": spectrum.trace_error,
    }


def spread(values: Iterable[float], form: str) -> str:
    values = list(values)
    return f"{statistics.mean(values):{form}} ± {statistics.stdev(values):{form}}"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Mean and standard deviation over the seeds."""
    lines = []
    for model in MODELS:
        for optimizer in OPTIMIZERS:
            mine = [row for row in rows if (row["model"], row["optimizer"]) == (model, optimizer)]
            if mine:
                columns = (("err", ".3f"), ("top_eigenvalue", ".3g"), ("trace", ".3g"))
                lines.append(
                    (
                        model,
                        optimizer,
                        f"{mine[0]['weight_decay']:g}",
                        spread((100 * row["test_accuracy"] for row in mine), ".1f"),
                        *(spread((row[name] for row in mine), form) for name, form in columns),
                        f"{100 * statistics.mean(row['share_in_0_1'] for row in mine):.1f} %",
                    )
                )
    head = ("model", "optimizer", "weight decay", "test accuracy, %", "err", "largest eigenvalue", "trace", "in [0, 1]")
    return markdown(head, lines)


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
        print(table(json.loads(arguments.report.read_text(encoding="utf-8"))["rows"]))
        return
    if not (arguments.data and arguments.out):
        parser.error("--data and --out must be given")
    rows = measure(arguments.data, arguments.out, arguments.steps, arguments.samples, arguments.jobs)
    if arguments.json:
        write_json(arguments.json, {"rows": rows, "rho": RHO, "steps": arguments.steps, **environment()})
    print(table(rows))


if __name__ == "__main__":
    main()
