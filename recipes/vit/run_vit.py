"""Train or fine-tune an image classifier with Trainer and any of its optimizers, ours included.

    python recipes/vit/run_vit.py recipes/vit/configs/digits.yaml --optim adamw_win
    python recipes/vit/run_vit.py recipes/vit/configs/cifar10_vit_tiny.yaml --optim adan

Arguments are Trainer's, those of this package's optimizers, and those of `arguments.py`. YAML files in first
place give arguments too; what comes later overrides. Training is followed by an evaluation on validation and test.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

# So that the script runs from a checkout, whatever the current folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from transformers import set_seed

import hf_winopt  # noqa: F401  (makes `--optim adamw_win` and the others known to Trainer)
from hf_winopt.integrations import report
from hf_winopt.integrations.results import Finished, Results
from hf_winopt.integrations.timing import StepTimer
from recipes.common import RecipeError, begin, check_saved_by, discard
from recipes.vit import experiment
from recipes.vit.arguments import parse
from recipes.vit.averaging import Averaging
from recipes.vit.trainer import ImageTrainer

SCRIPT = "recipes/vit/run_vit.py"


def main(argv: Sequence[str] | None = None) -> Results:
    """Train, evaluate and write the report; returns its results."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = parse(SCRIPT, argv)
    model_args, image_args, augment_args, training_args = arguments
    run = begin(training_args, image_args.comparison, overwrite=image_args.overwrite)
    if run.checkpoint is not None:
        check_saved_by(run.checkpoint, trainer=True)
    set_seed(training_args.seed)
    parts = experiment.prepare(arguments)

    timer, averaging = StepTimer(), Averaging(parts.model.to(training_args.device), model_args.ema_decay)
    trainer = ImageTrainer(
        parts,
        experiment.objective(parts, augment_args, training_args),
        averaging,
        repeats=augment_args.repeats,
        lr_drops=model_args.lr_drops,
        args=training_args,
        timer=timer,
    )
    if trainer.is_world_process_zero():
        discard(run.old_files)
    start = time.perf_counter()
    trainer.train(resume_from_checkpoint=run.checkpoint)
    with averaging.applied():
        trainer.save_model()
    scores: dict[str, float] = {}
    for split, images in parts.evaluated.items():
        scores |= trainer.evaluate(images, metric_key_prefix=experiment.PREFIXES[split].rstrip("_"))

    wall_seconds = time.perf_counter() - start
    finished = Finished(
        SCRIPT, argv, training_args, trainer.optimizer, trainer.state, timer, scores, run.compared, wall_seconds
    )
    results = experiment.results(arguments, parts, finished, trainer.waiting)
    if trainer.is_world_process_zero():
        report.write_report(run.folder, results)
        print(experiment.summary(results), f"{run.folder} holds the model and its report.", sep="\n")
    with averaging.applied():  # the push saves the model once more
        trainer.push_report()
    return results


if __name__ == "__main__":
    try:
        main()
    except RecipeError as error:
        sys.exit(f"run_vit.py: {error}")
