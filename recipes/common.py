"""What every recipe needs around its training: arguments, the output folder, and the progress line."""

from __future__ import annotations

import difflib
import itertools
import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn

import yaml
from safetensors import SafetensorError
from transformers import HfArgumentParser, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ProgressCallback, TrainerState

from hf_winopt.compare.report import quote_folder
from hf_winopt.integrations.hub import CARD_FILE, CURVES_FILE, RESULTS_FILE
from hf_winopt.integrations.private import CHECKPOINT
from hf_winopt.integrations.results import optimizer_name


class RecipeError(ValueError):
    """Something the user can put right; shown without a traceback."""

    def __str__(self) -> str:
        """Also without the one that a loading process sends along in its message."""
        return super().__str__().rpartition("RecipeError: ")[2].strip()


# ------------------------------------------------------------------------------------------------ arguments


@dataclass(kw_only=True)
class RunArguments:
    """What every training script takes beside Trainer's arguments and those of its task."""

    comparison: str | None = field(
        default=None, metadata={"help": "Folder of a `hf-winopt compare`; the model card quotes what it found."}
    )
    license: str | None = field(
        default=None, metadata={"help": "Of the trained model, for its card: apache-2.0, mit, ..."}
    )
    overwrite: bool = field(default=False, metadata={"help": "Discard the run that --output_dir already holds."})


class _Parser(HfArgumentParser):
    def error(self, message: str) -> NoReturn:  # argparse would print all of the usage and leave
        raise RecipeError(message)


def parse_arguments(
    script: str, kinds: Sequence[type], argv: Sequence[str], defaults: Mapping[str, Any]
) -> tuple[Any, ...]:
    """An instance of each dataclass in `kinds`, from a command line; `defaults` override those of the fields."""
    usage = f"{script} [SETTINGS.yaml ...] [--ARGUMENT VALUE ...]"
    parser = _Parser(kinds, prog=script, usage=usage, allow_abbrev=False)
    parser.set_defaults(**defaults)
    try:
        *parsed, unknown = parser.parse_args_into_dataclasses(
            expand_arguments(argv), return_remaining_strings=True, look_for_args_file=False
        )
    except ValueError as error:  # how TrainingArguments refuses a value
        raise RecipeError(str(error)) from error
    if unknown:
        known = [f"--{argument.name}" for kind in kinds for argument in fields(kind)]
        near = difflib.get_close_matches(unknown[0].partition("=")[0], known, n=1)
        raise RecipeError(f"unknown argument {unknown[0]}" + (f": did you mean {near[0]}?" if near else ""))
    return tuple(parsed)


def expand_arguments(argv: Sequence[str]) -> list[str]:
    """`settings.yaml more.yaml --key value` as plain arguments, in this order: what comes later has the last word.

    A bare `--resume_from_checkpoint` becomes `--resume_from_checkpoint true`.
    """
    argv, arguments = list(argv), []
    while argv and argv[0].endswith((".yaml", ".yml")):
        arguments += _from_yaml(Path(argv.pop(0)))
    for here, following in itertools.zip_longest(argv, argv[1:], fillvalue="--"):
        arguments.append(here)
        if here.replace("-", "_") == "__resume_from_checkpoint" and following.startswith("--"):
            arguments.append("true")
    return arguments


def _from_yaml(path: Path) -> list[str]:
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"no such settings file: {path}") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(settings, dict):
        raise RecipeError(f"{path} must hold `argument: value` lines")
    arguments = []
    for key, value in settings.items():
        if isinstance(value, list):
            arguments += [f"--{key}", *map(str, value)]
        elif isinstance(value, dict):
            arguments.append(f"--{key}={json.dumps(value)}")
        elif value is not None:
            arguments.append(f"--{key}={value}")
    return arguments


def refuse(arguments: TrainingArguments, names: Sequence[str]) -> None:
    """Refuse arguments that were given and would do nothing."""
    for name in names:
        if getattr(arguments, name, None):
            raise RecipeError(f"--{name} does nothing in this script: leave it out")


def one_gpu_a_process(arguments: TrainingArguments) -> None:
    """Refuse several GPUs for one process, which only Trainer knows to share a batch among."""
    if arguments.n_gpu > 1:
        raise RecipeError(
            f"one process would share {arguments.n_gpu} GPUs: start one for each by "
            f"accelerate launch --config_file recipes/accelerate/ddp.yaml --num_processes {arguments.n_gpu}, "
            "or show it one of them (CUDA_VISIBLE_DEVICES=0)"
        )


def comparison(folder: str | None, optim: str) -> str | None:
    """What `hf-winopt compare --out FOLDER` found out about an optimizer, for the card; None without a folder."""
    if folder is None:
        return None
    try:
        return quote_folder(Path(folder), optim)
    except ValueError as error:
        raise RecipeError(f"--comparison {folder}: {error}") from None


# -------------------------------------------------------------------------------------------- output folder


@dataclass(frozen=True)
class Beginning:
    """Where a run begins.

    Args:
        folder: its output.
        checkpoint: what it goes on from; None from the start.
        old_files: of an earlier run, to be discarded once nothing can be wrong any more.
        compared: what the card will say of the optimizer.
    """

    folder: Path
    checkpoint: str | None
    old_files: list[Path]
    compared: str | None


def begin(arguments: TrainingArguments, compare_folder: str | None, *, overwrite: bool) -> Beginning:
    """Find out before anything long; all that cannot be is a `RecipeError`."""
    folder, compared = Path(arguments.output_dir), comparison(compare_folder, optimizer_name(arguments))
    checkpoint = checkpoint_to_resume(arguments)
    old_files = leftovers(folder, resuming=checkpoint is not None, overwrite=overwrite)
    return Beginning(folder, checkpoint, old_files, compared)


def checkpoint_to_resume(arguments: TrainingArguments) -> str | None:
    """The checkpoint that `--resume_from_checkpoint [PATH]` means; without a path the last one, if there is one."""
    wanted = arguments.resume_from_checkpoint
    if wanted is None or wanted.lower() == "false":
        return None
    if wanted.lower() == "true":
        wanted = last_whole_checkpoint(arguments)
        if wanted is None:
            print(f"no checkpoint in {arguments.output_dir}: starting at step 0")
            return None
    if not Path(wanted, TRAINER_STATE_NAME).is_file():
        raise RecipeError(f"--resume_from_checkpoint: no such checkpoint: {wanted}")
    if arguments.max_steps > 0:
        check_unfinished(wanted, arguments.max_steps)
    print(f"resuming from {wanted}")
    return wanted


def last_whole_checkpoint(arguments: TrainingArguments) -> str | None:
    """The last checkpoint that is all there and leaves something to do; None without one.

    A run that is killed while it saves leaves half of a checkpoint. What is written last, by Trainer and here, is its
    state: where that is whole, everything is. A run that is killed after its last step has yet to be evaluated and
    reported: it takes its last steps once more, to the same bits.
    """
    folder = Path(arguments.output_dir)
    found = [path for path in folder.glob(f"{CHECKPOINT}*") if path.name.removeprefix(CHECKPOINT).isdigit()]
    found.sort(key=lambda path: int(path.name.removeprefix(CHECKPOINT)))
    for path in reversed(found):
        try:
            state = TrainerState.load_from_json(str(path / TRAINER_STATE_NAME))
        except (OSError, ValueError, TypeError):
            print(f"{path} is not whole: going on from the one before")
            continue
        if (folder / RESULTS_FILE).exists() or not _at_the_end(state, arguments) or path == found[0]:
            return str(path)
        print(f"{path} is at the last step, but nothing was reported: going on from the one before")
    return None


@contextmanager
def saving(checkpoint: Path) -> Iterator[None]:
    """Say in a line what goes wrong while a checkpoint is saved, such as a full disk, and what there is to do."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        raise RecipeError(
            f"{checkpoint} could not be saved: {error}. The checkpoints before it are as they were: "
            "once there is room, go on with --resume_from_checkpoint true"
        ) from error


def delete_checkpoint(checkpoint: Path) -> None:
    """Its state first: what is left if this is interrupted does not pass for a whole one."""
    (checkpoint / TRAINER_STATE_NAME).unlink(missing_ok=True)
    shutil.rmtree(checkpoint, ignore_errors=True)


def _at_the_end(state: TrainerState, arguments: TrainingArguments) -> bool:
    if arguments.max_steps > 0:
        return state.global_step >= arguments.max_steps
    return state.global_step >= state.max_steps and state.num_train_epochs == math.ceil(arguments.num_train_epochs)


def check_saved_by(checkpoint: str, *, trainer: bool) -> None:
    """That a script with Trainer goes on from one of Trainer's, and one without from one without."""
    saved_by_trainer = not Path(checkpoint, "custom_checkpoint_0.pkl").exists()  # Accelerate's name for the scheduler
    if saved_by_trainer != trainer:
        other = "Trainer" if saved_by_trainer else "a script without Trainer"
        raise RecipeError(f"--resume_from_checkpoint {checkpoint}: it was saved by {other}, go on from it with that")


def check_unfinished(checkpoint: str, steps: int) -> None:
    """That something is left to train."""
    done = TrainerState.load_from_json(str(Path(checkpoint, TRAINER_STATE_NAME))).global_step
    if done >= steps:  # Trainer would still take one step more
        raise RecipeError(f"{checkpoint} is at step {done} of {steps}: nothing is left to train")


def leftovers(folder: Path, *, resuming: bool, overwrite: bool) -> list[Path]:
    """What an earlier run left that a new one must not be mixed with, an error unless it may be overwritten."""
    old = [path for path in (folder / RESULTS_FILE, *folder.glob("checkpoint-*")) if path.exists()]
    if not old or resuming:
        return []
    if not overwrite:
        what = "a finished run" if old[0].name == RESULTS_FILE else "the checkpoints of an unfinished run"
        raise RecipeError(
            f"{folder} holds {what}: choose another --output_dir, go on with --resume_from_checkpoint, "
            "or start afresh with --overwrite"
        )
    return old + [path for path in (folder / CARD_FILE, folder / CURVES_FILE) if path.exists()]


def discard(paths: Sequence[Path]) -> None:
    for path in paths:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


# ------------------------------------------------------------------------------------------------- progress


class OneLineProgress(ProgressCallback):
    """Trainer's progress bar with the last numbers beside it instead of a line for every log entry."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self.title = title
        self.shown: dict[str, str] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        if self.training_bar is not None:
            self.training_bar.set_description(self.title)

    def on_prediction_step(self, *_: Any, **__: Any) -> None:
        """No second bar for evaluations."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if self.training_bar is not None:
            names = {"loss": "loss", "eval_loss": "eval loss"}
            self.shown |= {names[key]: f"{float(logs[key]):.3f}" for key in names if key in logs}
            self.training_bar.set_postfix(self.shown)
