"""Train a Transformer-XL on words with Trainer and any of its optimizers, ours included.

    python recipes/transformer_xl/run_transformer_xl.py recipes/transformer_xl/configs/small.yaml --optim adam_win
    python recipes/transformer_xl/run_transformer_xl.py recipes/transformer_xl/configs/base.yaml

Arguments are Trainer's, those of this package's optimizers, and those of `arguments.py`. YAML files in first
place give arguments too; what comes later overrides. Training is followed by the perplexities of validation and test.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

# So that the script runs from a checkout, whatever the current folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from transformers import set_seed

import hf_winopt  # noqa: F401  (makes `--optim adam_win` and the others known to Trainer)
from hf_winopt.integrations import report
from hf_winopt.integrations.results import Finished, Results
from hf_winopt.integrations.timing import StepTimer
from recipes.common import RecipeError, begin, check_saved_by, discard
from recipes.transformer_xl import experiment
from recipes.transformer_xl.arguments import parse
from recipes.transformer_xl.trainer import TransfoXLTrainer

SCRIPT = "recipes/transformer_xl/run_transformer_xl.py"


def main(argv: Sequence[str] | None = None) -> Results:
    """Train, evaluate and write the report; returns its results."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = parse(SCRIPT, argv)
    _, text_args, training_args = arguments
    run = begin(training_args, text_args.comparison, overwrite=text_args.overwrite)
    if run.checkpoint is not None:
        check_saved_by(run.checkpoint, trainer=True)
    set_seed(training_args.seed)
    parts = experiment.prepare(arguments, run.checkpoint)

    timer = StepTimer()
    trainer = TransfoXLTrainer(
        model=parts.model,
        args=training_args,
        train_dataset=parts.train,
        eval_dataset=parts.validation,
        processing_class=parts.tokenizer,
        eval_config=experiment.eval_config(text_args),
        callbacks=[timer],
    )
    if trainer.is_world_process_zero():
        discard(run.old_files)
    start = time.perf_counter()
    trainer.train(resume_from_checkpoint=run.checkpoint)
    trainer.save_model()
    scores = {**trainer.evaluate(), **trainer.evaluate(parts.test, metric_key_prefix="eval_test")}

    wall_seconds = time.perf_counter() - start
    finished = Finished(
        SCRIPT, argv, training_args, trainer.optimizer, trainer.state, timer, scores, run.compared, wall_seconds
    )
    results = experiment.results(arguments, parts, finished)
    if trainer.is_world_process_zero():
        report.write_report(run.folder, results)
        print(report.summary(results), f"{run.folder} holds the model and its report.", sep="\n")
    trainer.push_report()
    return results


if __name__ == "__main__":
    try:
        main()
    except RecipeError as error:
        sys.exit(f"run_transformer_xl.py: {error}")
