"""`hf-winopt hessian`: the spectrum of a model's loss Hessian, and the term of the AdamW paper's bound."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

EPILOG = """
The model is a classifier of sentences or of images, or a causal language model, in a folder or on the Hub. Of the data
set it takes the labels, and one or two columns of text, or the images. Each probe walks the data --lanczos-steps times,
the others than the first down to half as often.

With --lr and --weight-decay, or where the folder has the results.json of a training by this package, also the term of
Corollary 3 of the AdamW paper, for AdamW and for l2-Adam.

examples:
  hf-winopt hessian out/cola --dataset nyu-mll/glue --config cola --split validation --samples 512
  hf-winopt hessian out/vit --dataset uoft-cs/cifar10 --samples 1000 --json spectrum.json --png spectrum.png
"""


def main(argv: Sequence[str]) -> int:
    """Compute the spectrum and print what it says; the exit status, 130 when interrupted."""
    parser = _parser()
    args = parser.parse_args(argv)
    from accelerate import PartialState

    from hf_winopt.analysis.generalization import check_run
    from hf_winopt.analysis.hessian import hessian_spectrum
    from hf_winopt.analysis.memory import keep_freed_memory
    from hf_winopt.analysis.tasks import load_split, load_task, own_loss
    from hf_winopt.files import check_place

    try:
        run = _run(args)
        if run is not None:
            check_run(**run)
        for option in ("json", "png"):
            check_place(getattr(args, option), f"--{option}")
        state = PartialState(cpu=args.device == "cpu")  # under `accelerate launch` the processes share the data
        data = load_split(args.dataset, args.config, args.split, args.samples)
        task = load_task(args.model, data, args.batch_size, args.device or str(state.device))
        keep_freed_memory()
        began = time.monotonic()
        spectrum = hessian_spectrum(
            task.model,
            task.batches,
            own_loss,
            probes=args.probes,
            steps=args.lanczos_steps,
            seed=args.seed,
            storage=args.storage,
            held=args.hold_batches,
            progress=state.is_main_process and not args.quiet,
        )
        seconds = time.monotonic() - began
        terms = {} if run is None else {d: spectrum.generalization_term(decay=d, **run) for d in ("decoupled", "l2")}
    except (OSError, ValueError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        print("interrupted; nothing is written", file=sys.stderr)
        return 130
    if state.is_main_process:
        _write(args, spectrum, run, terms, seconds)
        print(_said(args, spectrum, run, terms))
    return 0


def _run(args: argparse.Namespace) -> dict[str, Any] | None:
    """The numbers of the training: what was given, else what its results say; None where there is nothing of either."""
    found = _from_results(Path(args.model))
    given = {"lr": args.lr, "weight_decay": args.weight_decay, "batch_size": args.run_batch_size}
    run = {**found, **{name: value for name, value in given.items() if value is not None}}
    if not run:
        return None
    if lacking := [name for name in given if name not in run]:
        options = {"lr": "--lr", "weight_decay": "--weight-decay", "batch_size": "--run-batch-size"}
        raise ValueError("the term needs " + ", ".join(options[name] for name in lacking) + " too")
    return {**run, "rho": args.rho}


def _from_results(folder: Path) -> dict[str, Any]:
    from hf_winopt.integrations.hub import RESULTS_FILE, read_results

    if not (folder / RESULTS_FILE).is_file():
        return {}
    results = read_results(folder)
    training, options = results["training"], results["optimizer"]["options"]
    return {
        "lr": training["learning_rate"],
        "weight_decay": options.get("weight_decay", 0.0),
        "batch_size": training["batch_size"],
    }


def _write(
    args: argparse.Namespace, spectrum: Any, run: dict[str, Any] | None, terms: dict[str, Any], seconds: float
) -> None:
    from hf_winopt.files import write_json
    from hf_winopt.integrations.results import environment
    from hf_winopt.public import public_name

    if args.json:
        said = {
            "model": public_name(args.model),
            "dataset": public_name(args.dataset),
            "config": args.config,
            "split": args.split,
            "seconds": seconds,
            "run": run,
            "generalization": {decay: vars(term) for decay, term in terms.items()},
        }
        write_json(args.json, {**said, **spectrum.to_dict(), **environment()})
    if args.png:
        from hf_winopt.analysis.picture import draw_spectrum

        draw_spectrum(spectrum, args.png, f"{public_name(args.model)} on {public_name(args.dataset)}, {args.split}")


def _said(args: argparse.Namespace, spectrum: Any, run: dict[str, Any] | None, terms: dict[str, Any]) -> str:
    top = ", ".join(f"{value:.4g}" for value in spectrum.top_eigenvalues[:5].tolist())
    lines = [
        f"{spectrum.dim} parameters, {spectrum.examples} examples of {args.split}, "
        f"{spectrum.probes} probes of {spectrum.steps} steps",
        f"largest eigenvalues   {top}",
        f"trace                 {spectrum.trace:.4g} (standard error {spectrum.trace_error:.2g})",
        f"eigenvalues in [0, 1] {100 * spectrum.share(0, 1):.4g} %",
        f"within [-1, 1]        {100 * spectrum.share(-1, 1):.4g} %",
        f"below 0               {100 * spectrum.share_negative:.4g} % (by more than {spectrum.resolution:.1g})",
    ]
    if run is not None:
        numbers = ", ".join(f"{name} {value:g}" for name, value in run.items())
        lines += [f"the term of Corollary 3 with {numbers}:", *(f"  {term}" for term in terms.values())]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hf-winopt hessian",
        description="The spectrum of a model's loss Hessian by stochastic Lanczos quadrature.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("model", help="a folder with a model, or its name on the Hub")
    add("--dataset", required=True, help="a data set of the Hub's, or a folder with one")
    add("--config", help="which of the data set's configurations, such as cola")
    add("--split", default="test", help="which of its splits (%(default)s)")
    add("--samples", type=_positive, help="take the first so many examples (all)")
    add("--batch-size", type=_positive, default=32, help="examples at a time; the result is the same (%(default)s)")
    add("--probes", type=_positive, default=10, help="random vectors to begin with (%(default)s)")
    add("--lanczos-steps", type=_positive, default=80, help="for each, and vectors held in memory (%(default)s)")
    add("--seed", type=int, default=0, help="draws the probes (%(default)s)")
    add("--device", help="where to compute (a GPU if there is one)")
    add("--storage", help="where to hold the vectors; cpu spares a GPU's memory (beside the model)")
    add("--hold-batches", type=int, default=1, help="keep the graphs of so many: faster, for more memory (%(default)s)")
    add("--lr", type=float, help="the training's learning rate, for the term (of results.json)")
    add("--weight-decay", type=float, help="its weight decay (of results.json)")
    add("--run-batch-size", type=_positive, help="its examples per step (of results.json)")
    add("--rho", type=float, default=1.0, help="the constant of the bound (%(default)s)")
    add("--json", type=Path, metavar="FILE", help="write all of it there")
    add("--png", type=Path, metavar="FILE", help="draw the density there")
    add("--quiet", action="store_true", help="no progress bar")
    return parser


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number >= 1; got {text!r}")
    return number
