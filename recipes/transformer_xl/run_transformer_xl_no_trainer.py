"""Train a Transformer-XL on words with plain Accelerate: the loop that `run_transformer_xl.py` leaves to Trainer.

    python recipes/transformer_xl/run_transformer_xl_no_trainer.py recipes/transformer_xl/configs/small.yaml
    accelerate launch recipes/transformer_xl/run_transformer_xl_no_trainer.py recipes/transformer_xl/configs/base.yaml

Arguments and settings files are those of `run_transformer_xl.py`, as far as this loop has a use for them: of Trainer's
those for the optimizer, schedule, batch, precision, clipping, logging, evaluating and saving.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

# So that the script runs from a checkout, whatever the current folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import set_seed

from hf_winopt.integrations import report
from hf_winopt.integrations.results import Finished, Results, describe_training
from hf_winopt.integrations.timing import StepTimer
from recipes.accelerated import (
    Progress,
    begin_state,
    go_on,
    is_due,
    make_accelerator,
    make_optimizer,
    make_scheduler,
    save_checkpoint,
    save_model,
)
from recipes.common import RecipeError, begin, discard
from recipes.pushes import Pushes
from recipes.transformer_xl import experiment
from recipes.transformer_xl.arguments import parse
from recipes.transformer_xl.memory import Memory
from recipes.transformer_xl.perplexity import changed, mean_loss, perplexity
from recipes.transformer_xl.streams import Streams, collate
from recipes.waiting import Waiting

SCRIPT = "recipes/transformer_xl/run_transformer_xl_no_trainer.py"


def main(argv: Sequence[str] | None = None) -> Results:
    """Train, evaluate and write the report; returns its results."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = parse(SCRIPT, argv)
    _, text_args, args = arguments
    run = begin(args, text_args.comparison, overwrite=text_args.overwrite)
    accelerator = make_accelerator(args)
    set_seed(args.seed)
    parts = experiment.prepare(arguments, run.checkpoint)
    pushes = Pushes(accelerator, args)
    if accelerator.is_main_process:
        run.folder.mkdir(parents=True, exist_ok=True)
        discard(run.old_files)

    def loader(streams: Streams, rows: int) -> DataLoader:
        return DataLoader(streams, batch_size=rows, collate_fn=collate)

    steps_in_epoch = parts.train.segments
    steps = experiment.steps(args, parts.train)
    optimizer = make_optimizer(parts.model, args, steps)
    scheduler = make_scheduler(optimizer, args, steps)
    accelerator.register_for_checkpointing(scheduler)
    model, optimizer, train, validation, test = accelerator.prepare(
        parts.model,
        optimizer,
        loader(parts.train, args.train_batch_size),
        loader(parts.validation, args.eval_batch_size),
        loader(parts.test, args.eval_batch_size),
    )
    accelerator.init_trackers("transformer_xl", config=describe_training(args, steps))

    def evaluate(streams: Streams, batches: DataLoader, prefix: str) -> dict[str, float]:
        model.eval()
        optimizer.eval()
        with changed(parts.model.config, **experiment.eval_config(text_args)), accelerator.autocast():
            loss = mean_loss(model, streams, batches, accelerator)
        model.train()
        optimizer.train()
        return progress.log(**{f"{prefix}loss": loss, f"{prefix}perplexity": perplexity(loss)})

    def save_more(folder: Path) -> None:
        memory.save(folder, accelerator.process_index, accelerator.num_processes)
        save_model(accelerator, model, parts.tokenizer, folder)

    memory, state, timer = Memory(parts.train), begin_state(args, steps, run.checkpoint), StepTimer()
    waiting = Waiting(timer)
    if run.checkpoint is not None:
        read = state.global_step % steps_in_epoch * args.gradient_accumulation_steps
        batches = go_on(accelerator, run.checkpoint, train, read)
        memory.load(Path(run.checkpoint))
    else:
        set_seed(args.seed)  # as Trainer does, so that both drop out the same
        batches = iter(train)
    progress = Progress(state, accelerator, steps_in_epoch)
    start = time.perf_counter()
    bar = tqdm(total=steps, initial=state.global_step, disable=args.disable_tqdm or not accelerator.is_main_process)
    model.train()
    optimizer.train()
    timer.on_step_begin()
    while state.global_step < steps:
        for batch in waiting.over(batches):
            with accelerator.accumulate(model):
                loss = memory.read(model, batch).loss
                accelerator.backward(loss)
                if accelerator.sync_gradients and args.max_grad_norm:
                    accelerator.clip_grad_norm_(model.parameters(), args.max_grad_norm)
                rate = scheduler.get_last_lr()[0]
                optimizer.step()
                optimizer.zero_grad()
            progress.add(loss)
            if not accelerator.sync_gradients:
                continue
            if not accelerator.optimizer_step_was_skipped:
                scheduler.step()
            timer.on_step_end()
            state.global_step += 1
            bar.update()
            due = (state.global_step, steps_in_epoch, steps)
            if is_due(args.logging_strategy, state.logging_steps, *due):
                bar.set_postfix(progress.log_loss(learning_rate=rate))
            if is_due(args.eval_strategy, state.eval_steps, *due):
                bar.set_postfix(evaluate(parts.validation, validation, experiment.PREFIXES["validation"]))
            if is_due(args.save_strategy, state.save_steps, *due):
                save_checkpoint(accelerator, state, args, save_more)
                pushes.checkpoint(state, partial(save_model, accelerator, model, parts.tokenizer))
            if state.global_step == steps:
                break
            timer.on_step_begin()
        batches = iter(train)
    bar.close()

    scores = {
        **evaluate(parts.validation, validation, experiment.PREFIXES["validation"]),
        **evaluate(parts.test, test, experiment.PREFIXES["test"]),
    }
    wall_seconds = time.perf_counter() - start
    finished = Finished(SCRIPT, argv, args, optimizer, state, timer, scores, run.compared, wall_seconds)
    results = experiment.results(arguments, parts, finished)
    save_model(accelerator, model, parts.tokenizer, run.folder)
    if accelerator.is_main_process:
        report.write_report(run.folder, results)
        print(report.summary(results), f"{run.folder} holds the model and its report.", sep="\n")
        pushes.report()
    accelerator.end_training()
    return results


if __name__ == "__main__":
    try:
        main()
    except RecipeError as error:
        sys.exit(f"run_transformer_xl_no_trainer.py: {error}")
