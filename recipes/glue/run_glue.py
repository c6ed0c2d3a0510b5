"""Fine-tune a sequence classifier on a GLUE task with Trainer and any of its optimizers, ours included.

    python recipes/glue/run_glue.py --task_name cola --optim adamw_win --output_dir runs/cola
    python recipes/glue/run_glue.py recipes/glue/configs/adan_cola.yaml --seed 1

Arguments are Trainer's, those of this package's optimizers, and those of `arguments.py`. YAML files in first place
give arguments too; what comes later overrides. Training is followed by an evaluation on the task's validation sets.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

# So that the script runs from a checkout, whatever the current folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from transformers import set_seed
from transformers.trainer_callback import PrinterCallback, ProgressCallback

import hf_winopt  # noqa: F401  (makes `--optim adamw_win` and the others known to Trainer)
from hf_winopt.integrations import report
from hf_winopt.integrations.results import Finished, Results
from hf_winopt.integrations.timing import StepTimer
from recipes.common import OneLineProgress, RecipeError, begin, check_saved_by, discard
from recipes.glue import experiment
from recipes.glue.arguments import parse
from recipes.trainer import RecipeTrainer

SCRIPT = "recipes/glue/run_glue.py"


def main(argv: Sequence[str] | None = None, *, title: str | None = None) -> Results:
    """Train, evaluate and write the report; returns its results. With a title: one progress line, no log lines."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = parse(SCRIPT, argv)
    _, data_args, training_args = arguments
    run = begin(training_args, data_args.comparison, overwrite=data_args.overwrite)
    if run.checkpoint is not None:
        check_saved_by(run.checkpoint, trainer=True)
    set_seed(training_args.seed)
    parts = experiment.prepare(arguments)

    # The loss of a classifier is the mean of its batch. Trainer 5 takes any model that accepts further keywords for one
    # that divides by the number of items itself, and would add up accumulated gradients without dividing them.
    parts.model.accepts_loss_kwargs = False
    first, *others = parts.validation.values()
    timer = StepTimer()
    trainer = RecipeTrainer(
        model=parts.model,
        args=training_args,
        train_dataset=parts.train,
        eval_dataset=parts.validation if others else first,
        processing_class=parts.tokenizer,
        data_collator=parts.collator,
        compute_metrics=parts.metrics,
        callbacks=[timer],
    )
    if title is not None:
        for callback in (ProgressCallback, PrinterCallback):
            trainer.pop_callback(callback)
        trainer.add_callback(OneLineProgress(title))

    if trainer.is_world_process_zero():
        discard(run.old_files)
    start = time.perf_counter()
    trainer.train(resume_from_checkpoint=run.checkpoint)
    trainer.save_model()
    scores = trainer.evaluate()

    wall_seconds = time.perf_counter() - start
    finished = Finished(
        SCRIPT, argv, training_args, trainer.optimizer, trainer.state, timer, scores, run.compared, wall_seconds
    )
    results = experiment.results(arguments, parts, finished)
    if trainer.is_world_process_zero():
        report.write_report(run.folder, results)
        if title is None:
            print(report.summary(results), f"{run.folder} holds the model and its report.", sep="\n")
    trainer.push_report()
    return results


if __name__ == "__main__":
    try:
        main()
    except RecipeError as error:
        sys.exit(f"run_glue.py: {error}")
