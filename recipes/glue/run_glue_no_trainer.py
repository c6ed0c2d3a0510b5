"""Fine-tune a sequence classifier on a GLUE task with plain Accelerate: the loop that `run_glue.py` leaves to Trainer.

    python recipes/glue/run_glue_no_trainer.py --task_name cola --optim adamw_win --output_dir runs/cola
    accelerate launch recipes/glue/run_glue_no_trainer.py recipes/glue/configs/adan_cola.yaml

Arguments and settings files are those of `run_glue.py`, as far as this loop has a use for them: of Trainer's those for
the optimizer, schedule, batch, loading, precision, clipping, logging, evaluating and saving.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

# So that the script runs from a checkout, whatever the current folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from datasets import Dataset
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
    loader_options,
    loss_weight,
    make_accelerator,
    make_optimizer,
    make_scheduler,
    save_checkpoint,
    save_model,
)
from recipes.common import RecipeError, begin, discard
from recipes.glue import experiment
from recipes.glue.arguments import parse
from recipes.glue.scores import score
from recipes.pushes import Pushes
from recipes.waiting import Waiting

SCRIPT = "recipes/glue/run_glue_no_trainer.py"


def main(argv: Sequence[str] | None = None) -> Results:
    """Train, evaluate and write the report; returns its results."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = parse(SCRIPT, argv)
    _, data_args, args = arguments
    run = begin(args, data_args.comparison, overwrite=data_args.overwrite)
    accelerator = make_accelerator(args)
    set_seed(args.seed)
    parts = experiment.prepare(arguments)
    pushes = Pushes(accelerator, args)

    def loader(rows: Dataset, batch_size: int, *, shuffle: bool) -> DataLoader:
        return accelerator.prepare(
            DataLoader(
                rows,
                batch_size=batch_size,
                shuffle=shuffle,
                collate_fn=parts.collator,
                **loader_options(args),
            )
        )

    train = loader(parts.train, args.train_batch_size, shuffle=True)
    validation = {split: loader(rows, args.eval_batch_size, shuffle=False) for split, rows in parts.validation.items()}
    steps_in_epoch = math.ceil(len(train) / args.gradient_accumulation_steps)
    steps = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * steps_in_epoch)
    optimizer = make_optimizer(parts.model, args, steps)
    scheduler = make_scheduler(optimizer, args, steps)
    accelerator.register_for_checkpointing(scheduler)
    model, optimizer = accelerator.prepare(parts.model, optimizer)

    def evaluate() -> dict[str, float]:
        model.eval()
        optimizer.eval()
        scores = {}
        for split, prefix in parts.prefixes.items():
            found = score(model, validation[split], args.eval_batch_size, parts.metrics, accelerator)
            scores |= progress.log(**{f"{prefix}{name}": value for name, value in found.items()})
        model.train()
        optimizer.train()
        return scores

    state, timer = begin_state(args, steps, run.checkpoint), StepTimer()
    waiting = Waiting(timer)
    if accelerator.is_main_process:
        run.folder.mkdir(parents=True, exist_ok=True)
        discard(run.old_files)
    accelerator.init_trackers("glue", config=describe_training(args, steps))
    progress = Progress(state, accelerator, steps_in_epoch)
    first_epoch, steps_taken = divmod(state.global_step, steps_in_epoch)
    read = steps_taken * args.gradient_accumulation_steps
    train.set_epoch(first_epoch)
    if run.checkpoint is not None:
        batches = go_on(accelerator, run.checkpoint, train, read)
    else:
        set_seed(args.seed)  # as Trainer does, so that both drop out the same
        batches = iter(train)
    start = time.perf_counter()
    bar = tqdm(total=steps, initial=state.global_step, disable=args.disable_tqdm or not accelerator.is_main_process)
    model.train()
    optimizer.train()
    timer.on_step_begin()
    for epoch in range(first_epoch, math.ceil(steps / steps_in_epoch)):
        if epoch > first_epoch:
            train.set_epoch(epoch)
            batches, read = iter(train), 0
        for index, batch in enumerate(waiting.over(batches), start=read):
            weight = loss_weight(index, len(train), args.gradient_accumulation_steps)
            with accelerator.accumulate(model):
                loss = model(**batch).loss
                accelerator.backward(weight * loss)
                if accelerator.sync_gradients and args.max_grad_norm:
                    accelerator.clip_grad_norm_(model.parameters(), args.max_grad_norm)
                rate = scheduler.get_last_lr()[0]
                optimizer.step()
                optimizer.zero_grad()
            progress.add(loss, weight)
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
                bar.set_postfix(evaluate())
            if is_due(args.save_strategy, state.save_steps, *due):
                save_checkpoint(accelerator, state, args, partial(save_model, accelerator, model, parts.tokenizer))
                pushes.checkpoint(state, partial(save_model, accelerator, model, parts.tokenizer))
            if state.global_step == steps:
                break
            timer.on_step_begin()
    bar.close()

    scores = evaluate()
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
        sys.exit(f"run_glue_no_trainer.py: {error}")
