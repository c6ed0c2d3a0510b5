"""Train or fine-tune an image classifier with plain Accelerate: the loop that `run_vit.py` leaves to Trainer.

    python recipes/vit/run_vit_no_trainer.py recipes/vit/configs/digits.yaml --optim adamw_win
    accelerate launch recipes/vit/run_vit_no_trainer.py recipes/vit/configs/vit_s.yaml

Arguments and settings files are those of `run_vit.py`, as far as this loop has a use for them: of Trainer's those for
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

from accelerate import DistributedType
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
from recipes.pushes import Pushes
from recipes.vit import experiment
from recipes.vit.arguments import parse
from recipes.vit.averaging import Averaging
from recipes.vit.images import Images, Order, collate
from recipes.vit.schedule import with_drops
from recipes.vit.scores import score
from recipes.waiting import Waiting

SCRIPT = "recipes/vit/run_vit_no_trainer.py"


def main(argv: Sequence[str] | None = None) -> Results:
    """Train, evaluate and write the report; returns its results."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = parse(SCRIPT, argv)
    model_args, image_args, augment_args, args = arguments
    run = begin(args, image_args.comparison, overwrite=image_args.overwrite)
    accelerator = make_accelerator(args, understood=["label_smoothing_factor"])
    set_seed(args.seed)
    parts = experiment.prepare(arguments)
    pushes = Pushes(accelerator, args)
    objective = experiment.objective(parts, augment_args, args)
    if model_args.ema_decay and accelerator.distributed_type == DistributedType.FSDP:
        raise RecipeError("--ema_decay: weights in shards (FSDP) are not averaged: leave it out")
    averaging = Averaging(parts.model.to(accelerator.device), model_args.ema_decay)

    def loader(images: Images, batch_size: int, order: Order | None = None) -> DataLoader:
        return accelerator.prepare(
            DataLoader(
                images,
                batch_size=batch_size,
                sampler=order,
                collate_fn=collate,
                **loader_options(args),
            )
        )

    train = loader(parts.train, args.train_batch_size, Order(parts.train, parts.train.seed, augment_args.repeats))
    evaluated = {split: loader(images, args.eval_batch_size) for split, images in parts.evaluated.items()}
    steps_in_epoch = experiment.steps_in_epoch(parts, args)
    steps = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * steps_in_epoch)
    optimizer = make_optimizer(parts.model, args, steps)
    scheduler = (
        make_scheduler(optimizer, args, steps)
        if model_args.lr_drops is None
        else with_drops(optimizer, model_args.lr_drops, steps_in_epoch, args.get_warmup_steps(steps))
    )
    accelerator.register_for_checkpointing(scheduler)
    model, optimizer = accelerator.prepare(parts.model, optimizer)

    def evaluate(split: str) -> dict[str, float]:
        model.eval()
        optimizer.eval()
        with averaging.applied():
            found = score(objective, model, evaluated[split], accelerator)
        model.train()
        optimizer.train()
        return progress.log(**{f"{experiment.PREFIXES[split]}{name}": value for name, value in found.items()})

    def save_more(folder: Path) -> None:
        save_model(accelerator, model, parts.processor, folder)
        if accelerator.is_main_process:
            averaging.save(folder)

    state, timer = begin_state(args, steps, run.checkpoint), StepTimer()
    waiting = Waiting(timer)
    if accelerator.is_main_process:
        run.folder.mkdir(parents=True, exist_ok=True)
        discard(run.old_files)
    accelerator.init_trackers("vit", config=describe_training(args, steps))
    progress = Progress(state, accelerator, steps_in_epoch)
    first_epoch, steps_taken = divmod(state.global_step, steps_in_epoch)
    read = steps_taken * args.gradient_accumulation_steps
    train.set_epoch(first_epoch)
    if run.checkpoint is not None:
        batches = go_on(accelerator, run.checkpoint, train, read)
        averaging.load(Path(run.checkpoint))
    else:
        set_seed(args.seed)  # as Trainer does, so that both drop out the same
        batches = iter(train)
    start = time.perf_counter()
    bar = tqdm(total=steps, initial=state.global_step, disable=args.disable_tqdm or not accelerator.is_main_process)
    model.train()
    optimizer.train()
    for epoch in range(first_epoch, math.ceil(steps / steps_in_epoch)):
        if epoch > first_epoch:
            train.set_epoch(epoch)
            batches, read = iter(train), 0
        for index, batch in enumerate(waiting.over(batches), start=read):
            if index % args.gradient_accumulation_steps == 0:
                timer.on_step_begin()
            weight = loss_weight(index, len(train), args.gradient_accumulation_steps)
            with accelerator.accumulate(model):
                with accelerator.autocast():
                    loss, _ = objective(model, batch)
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
            averaging.update()
            timer.on_step_end()
            state.global_step += 1
            bar.update()
            due = (state.global_step, steps_in_epoch, steps)
            if is_due(args.logging_strategy, state.logging_steps, *due):
                bar.set_postfix(progress.log_loss(learning_rate=rate))
            if is_due(args.eval_strategy, state.eval_steps, *due):
                bar.set_postfix(evaluate("validation"))
            if is_due(args.save_strategy, state.save_steps, *due):
                save_checkpoint(accelerator, state, args, save_more)
                pushes.checkpoint(state, partial(save_model, accelerator, model, parts.processor))
            if state.global_step == steps:
                break
    bar.close()

    scores: dict[str, float] = {}
    for split in evaluated:
        scores |= evaluate(split)
    wall_seconds = time.perf_counter() - start
    finished = Finished(SCRIPT, argv, args, optimizer, state, timer, scores, run.compared, wall_seconds)
    results = experiment.results(arguments, parts, finished, waiting)
    with averaging.applied():
        save_model(accelerator, model, parts.processor, run.folder)
    if accelerator.is_main_process:
        report.write_report(run.folder, results)
        print(experiment.summary(results), f"{run.folder} holds the model and its report.", sep="\n")
        pushes.report()
    accelerator.end_training()
    return results


if __name__ == "__main__":
    try:
        main()
    except RecipeError as error:
        sys.exit(f"run_vit_no_trainer.py: {error}")
