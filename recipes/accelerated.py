"""What the plain Accelerate scripts share around their loop: Trainer's arguments, put to use where Trainer does not."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, LoggerType
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments, get_scheduler
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import TrainerState

from hf_winopt.integrations.callbacks import stop_agr
from hf_winopt.integrations.private import CHECKPOINT
from recipes.common import (
    RecipeError,
    check_saved_by,
    check_unfinished,
    delete_checkpoint,
    one_gpu_a_process,
    refuse,
    saving,
)

# What Trainer does itself and this loop does not.
_TRAINERS_OWN = (
    "auto_find_batch_size",
    "batch_eval_metrics",
    "bf16_full_eval",
    "deepspeed",
    "eval_delay",
    "eval_on_start",
    "fp16_full_eval",
    "fsdp",
    "full_determinism",
    "gradient_checkpointing",
    "activation_checkpointing",  # the same by its newer name, which Trainer 5 then sets as well
    "group_by_length",
    "ignore_data_skip",
    "include_for_metrics",
    "label_smoothing_factor",
    "load_best_model_at_end",
    "logging_first_step",
    "neftune_noise_alpha",
    "prediction_loss_only",
    "save_only_model",
    "torch_compile",
    "use_liger_kernel",
)


def make_accelerator(args: TrainingArguments, *, understood: Sequence[str] = ()) -> Accelerator:
    """With the precision, the accumulation, the trackers and the order of the data that the arguments ask for.

    Set the seed before the loaders are prepared: they are shuffled by it, as Trainer's are, unless there is a
    `--data_seed`. An epoch is shuffled by its number: `loader.set_epoch(n)`.

    Args:
        args: of the script.
        understood: names of arguments that only Trainer would heed, but for this script.
    """
    refuse(args, [name for name in _TRAINERS_OWN if name not in understood])
    one_gpu_a_process(args)
    if (order := getattr(args, "train_sampling_strategy", "random")) != "random":  # from Trainer 5 on
        raise RecipeError(f"--train_sampling_strategy {order} is Trainer's: this loop reads in random order")
    known = {tracker.value for tracker in LoggerType} - {LoggerType.ALL.value}
    if unknown := set(args.report_to) - known:
        names = " ".join(sorted(unknown))
        raise RecipeError(f"--report_to {names}: Accelerate has trackers for {', '.join(sorted(known))}; or say none")
    if "best" in (args.save_strategy, getattr(args.save_strategy, "value", None)):
        raise RecipeError("--save_strategy best is Trainer's: say steps, epoch or no")
    accelerator = Accelerator(
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        mixed_precision="bf16" if args.bf16 else "fp16" if args.fp16 else "no",
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True, data_seed=args.data_seed),
        log_with=list(args.report_to) or None,
        project_dir=args.output_dir,
    )
    launched_with = accelerator.gradient_accumulation_steps  # the launcher has the last word
    if launched_with != args.gradient_accumulation_steps:
        raise RecipeError(
            f"--gradient_accumulation_steps {args.gradient_accumulation_steps}: the launcher's configuration says "
            f"{launched_with}: give both the same"
        )
    if accelerator.deepspeed_plugin is not None:  # it clips by itself, and asks for the batch before there is a loader
        accelerator.deepspeed_plugin.deepspeed_config |= {
            "train_micro_batch_size_per_gpu": args.train_batch_size,
            "gradient_clipping": args.max_grad_norm or 0.0,
        }
    return accelerator


def make_optimizer(model: nn.Module, args: TrainingArguments, steps: int) -> Optimizer:
    """The optimizer that `--optim` names, for so many steps; biases and norms are not decayed, as in Trainer."""
    decayed = set(Trainer.get_decay_parameter_names(None, model))  # it asks nothing of a Trainer
    groups = [
        {"params": [p for name, p in model.named_parameters() if (name in decayed) == decay], "weight_decay": amount}
        for decay, amount in ((True, args.weight_decay), (False, 0.0))
    ]
    optimizer_class, options = Trainer.get_optimizer_cls_and_kwargs(args, model)
    for key in ("params", "model", "optimizer_dict"):  # what some take in place of our groups, as in Trainer
        groups = options.pop(key, groups)
    optimizer = optimizer_class(groups, **options)
    stop_agr(args, optimizer, steps)
    return optimizer


def make_scheduler(optimizer: Optimizer, args: TrainingArguments, steps: int) -> LRScheduler:
    """The schedule of `--lr_scheduler_type`.

    Not to be prepared: Accelerate's wrapper would step it once for each process, and a checkpoint could not be gone on
    from by another number of them. Step it after each step of the optimizer that was not skipped.

    Raises:
        RecipeError: it needs an evaluation for its steps.
    """
    kind = str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type))
    if kind in ("reduce_lr_on_plateau", "greedy"):
        raise RecipeError(f"--lr_scheduler_type {kind} is Trainer's: this loop steps by steps alone")
    return get_scheduler(
        args.lr_scheduler_type,
        optimizer,
        num_warmup_steps=args.get_warmup_steps(steps),
        num_training_steps=steps,
        scheduler_specific_kwargs=args.lr_scheduler_kwargs,
    )


def loader_options(args: TrainingArguments) -> dict[str, Any]:
    """What the arguments say of a `DataLoader`, beside its batches."""
    return {
        "drop_last": args.dataloader_drop_last,
        "num_workers": args.dataloader_num_workers,
        "pin_memory": args.dataloader_pin_memory,
        "persistent_workers": args.dataloader_persistent_workers,
        "prefetch_factor": args.dataloader_prefetch_factor,
    }


def begin_state(args: TrainingArguments, steps: int, checkpoint: str | None) -> TrainerState:
    """Trainer's state of a run, of one that begins or of the checkpoint's.

    Raises:
        RecipeError: the checkpoint has done all the steps.
    """
    state = TrainerState()
    if checkpoint is not None:
        check_unfinished(checkpoint, steps)
        state = TrainerState.load_from_json(str(Path(checkpoint, TRAINER_STATE_NAME)))
    state.max_steps = steps
    state.compute_steps(args, steps)
    return state


def go_on(accelerator: Accelerator, checkpoint: str, loader: DataLoader, read: int) -> Iterator[Any]:
    """Load a checkpoint, and give the rest of the batches after the `read` first ones of the loader's epoch.

    To begin reading draws a random number, which the interrupted run drew before it saved unless it was at the end of
    the data: so that is done before the state of the random numbers is loaded, or after.

    Raises:
        RecipeError: the checkpoint is Trainer's, or of another model.
    """
    check_saved_by(checkpoint, trainer=False)
    rest, first = iter(accelerator.skip_first_batches(loader, read) if read else loader), []
    if read:
        first.append(next(rest))
    try:
        accelerator.load_state(checkpoint)
    except (RuntimeError, ValueError) as error:  # of other shapes, or of another optimizer
        raise RecipeError(f"cannot go on from {checkpoint}: {str(error).strip().splitlines()[0]}") from error
    accelerator.step = 0  # batches since the last step: none, however many are accumulated now
    return itertools.chain(first, rest)


def is_due(strategy: Any, every: int, step: int, steps_in_epoch: int, last: int) -> bool:
    """Whether what is done by `--*_strategy` and `--*_steps` is done after this step; after the last it always is."""
    kind = str(getattr(strategy, "value", strategy))
    if kind == "no":
        return False
    return step == last or step % (every if kind == "steps" else steps_in_epoch) == 0


def loss_weight(batch: int, batches: int, accumulated: int) -> float:
    """What the loss of a batch is weighed with: 1, and more in the last step of an epoch if fewer batches are left.

    A step is made of `accumulated` batches. Accelerate always divides by that number, Trainer by that of the batches
    that the step has.

    Args:
        batch, batches: its number in the epoch, from 0 on, and how many there are.
        accumulated: `--gradient_accumulation_steps`.
    """
    return accumulated / min(accumulated, batches - batch // accumulated * accumulated)


def save_model(accelerator: Accelerator, model: nn.Module, prepares: Any, folder: Path) -> None:
    """Save a prepared model, and what prepares its inputs; for all processes to call, as each may have a shard."""
    weights = accelerator.get_state_dict(model)
    if accelerator.is_main_process:
        accelerator.unwrap_model(model).save_pretrained(folder, state_dict=weights)
        prepares.save_pretrained(folder)


def save_checkpoint(
    accelerator: Accelerator, state: TrainerState, args: TrainingArguments, more: Callable[[Path], None]
) -> None:
    """Save all that a run goes on from, in a folder that has its name only once it is whole; and delete old ones.

    Args:
        accelerator: whose `save_state` saves what was prepared, and random numbers.
        state: saved as Trainer's own.
        args: `output_dir` and `save_total_limit`.
        more: saves what a process has beside that, in the folder it is given.
    """
    output = Path(args.output_dir)
    folder = output / f"{CHECKPOINT}{state.global_step}"
    partial = output / f".{folder.name}.partial"
    with saving(folder):
        if accelerator.is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
        accelerator.wait_for_everyone()
        partial.mkdir(parents=True, exist_ok=True)
        more(partial)
        # last: of a model saved under other names than its own, it is what is read
        accelerator.save_state(str(partial))
        if accelerator.is_main_process:
            state.save_to_json(str(partial / TRAINER_STATE_NAME))
        accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        delete_checkpoint(folder)
        partial.rename(folder)
        if args.save_total_limit:
            old = [path for path in output.glob(f"{CHECKPOINT}*") if path.name.removeprefix(CHECKPOINT).isdigit()]
            old.sort(key=lambda path: int(path.name.removeprefix(CHECKPOINT)))
            for path in old[: -args.save_total_limit]:
                delete_checkpoint(path)


class Progress:
    """Trainer's state of a run, kept by hand: the step, and a log with the mean loss since the last entry."""

    def __init__(self, state: TrainerState, accelerator: Accelerator, steps_in_epoch: int) -> None:
        self.state, self.accelerator, self.steps_in_epoch = state, accelerator, steps_in_epoch
        self._sum: torch.Tensor | float = 0.0
        self._weights = 0.0

    def add(self, loss: torch.Tensor, weight: float = 1.0) -> None:
        """The loss of a batch."""
        self._sum = self._sum + weight * loss.detach()
        self._weights += weight

    def log_loss(self, **more: float) -> dict[str, float]:
        """An entry of the log: the mean loss of all processes' batches since the last, and what else is given."""
        mean = self.accelerator.reduce(torch.as_tensor(self._sum / self._weights), "mean").item()
        self._sum, self._weights = 0.0, 0.0
        return self.log(loss=mean, **more)

    def log(self, **values: float) -> dict[str, float]:
        """An entry of the log, for trackers too."""
        step = self.state.global_step
        self.accelerator.log(values, step=step)
        self.state.log_history.append({**values, "epoch": step / self.steps_in_epoch, "step": step})
        return values
