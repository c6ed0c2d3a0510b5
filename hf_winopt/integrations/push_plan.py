"""What of a run's folder is to be pushed, and everything that speaks against it; no request is made here."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from hf_winopt.integrations.hub import CARD_FILE, FOLDER_OR_HUB_NAME, RESULTS_FILE, WinOptModelCard
from hf_winopt.integrations.last_look import find_private
from hf_winopt.integrations.private import CHECKPOINT, STATE_FILE, public_state

ARGUMENTS_FILE = "training_args.bin"
SPARED = (ARGUMENTS_FILE, "*tfevents*")
"""Nobody needs these to use a model, and both are full of arguments."""
CONFIGS = ("config.json", "adapter_config.json")
WEIGHTS = ("*.safetensors", "*.bin")

_OPTIMIZER = ("optimizer.pt", "optimizer*.bin", "optimizer_[0-9]*", "global_step[0-9]*")
_TRAINING = (
    *_OPTIMIZER,
    "custom_checkpoint_*.pkl",
    "latest",
    "pytorch_model_fsdp_*",
    "random_states_*.pkl",
    "rng_state*.pth",
    "sampler*.bin",
    "scaler.pt",
    "scheduler*.bin",
    "scheduler.pt",
    "zero_to_fp32.py",
)
"""What a training is gone on from, by Trainer, Accelerate, FSDP or DeepSpeed: names in the folder itself."""
_OTHERS = ("wandb", "mlruns")
"""Folders where other tools log, with the name of the machine and its paths."""


class PushError(ValueError):
    """Why nothing, or not all, was pushed."""


@dataclass(frozen=True)
class File:
    """A file to push, under the name that it gets; with `content` where that is not what lies at `path`."""

    name: str
    path: Path
    content: bytes | None = None

    @property
    def source(self) -> Path | bytes:
        return self.path if self.content is None else self.content


@dataclass
class Plan:
    """What is pushed, what is not and why, and what else there is to say."""

    files: list[File]
    left_out: dict[str, str]
    notes: list[str] = field(default_factory=list)


def make_plan(
    folder: Path, repo_id: str, with_optimizer: bool, checkpoint: str | Path | None, checkpoint_name: str
) -> Plan:
    """The files of a run, with a card if it has one or results to make it of.

    Raises:
        PushError: there is nothing to push, or not all of it.
    """
    if not folder.is_dir():
        raise PushError(f"{folder}: no such folder; give what the training had as --output_dir")
    if not re.fullmatch(r"\w[\w.-]*", checkpoint_name):
        raise PushError(f"checkpoint_name {checkpoint_name!r}: a folder's name of letters, digits and ._- is needed")
    plan = Plan([], {})
    for name in _names(folder):
        where, why = _why_not(name, checkpoint_name)
        if why:
            plan.left_out[where] = why
        else:
            plan.files.append(File(name, folder / name))
    _check_model(folder, {file.name for file in plan.files})
    _add_card(plan, folder, repo_id)
    if with_optimizer:
        chosen = _find_checkpoint(folder, checkpoint)
        plan.notes.append(f"{checkpoint_name}/ is {chosen.name}, to go on from")
        wanted = (name for name in _names(chosen) if not _unfinished(name.split("/")))
        plan.files += [File(f"{checkpoint_name}/{name}", chosen / name) for name in wanted]
    elif checkpoint is not None:
        raise PushError(f"checkpoint {checkpoint}: only pushed with with_optimizer=True (--with-optimizer)")
    for file in plan.files:
        if file.name.endswith(".safetensors"):
            _check_whole(file.path)
    plan.files = [_with_public_paths(file) for file in plan.files]
    return plan


def leave_out_private(plan: Plan, words: Mapping[bytes, str]) -> None:
    """Look through every file once more; what can be spared is left out, whatever else has something, stops the push.

    Raises:
        PushError: something private is in another file.
    """
    kept = []
    for file in plan.files:
        found = find_private(file.source, words)
        if found is None:
            kept.append(file)
        elif any(fnmatchcase(file.name.rpartition("/")[2], pattern) for pattern in SPARED):
            plan.left_out[file.name] = f"has {found} in it"
        else:
            raise PushError(
                f"{file.path} has {found} in it, which others would then read: take it out of the file, or move the "
                "file elsewhere; nothing was sent"
            )
    plan.files = kept


def _names(folder: Path) -> Iterator[str]:
    """Of all files below a folder; what a link to another folder holds is not followed, as the client does not."""
    return (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())


def _why_not(name: str, checkpoint_name: str) -> tuple[str, str]:
    """Why a file is left out, empty if it is not, and what to call that: of a folder left out the folder alone."""
    first, *rest = name.split("/")
    where = f"{first}/" if rest else first
    is_checkpoint = first.startswith(CHECKPOINT) and first.removeprefix(CHECKPOINT).isdigit()
    if is_checkpoint or first == checkpoint_name:
        return where, "a checkpoint, which --with-optimizer is for"
    if any(fnmatchcase(first, pattern) for pattern in _TRAINING):
        return where, "only to go on training from, which --with-optimizer is for"
    if rest and first in _OTHERS:
        return where, "another tool's log, with the machine's name and paths"
    if first.startswith("_"):
        return where, "begins with _, which Trainer leaves out"
    return (where if _unfinished([first]) else name), _unfinished([first, *rest])


def _unfinished(parts: list[str]) -> str:
    if any(part.endswith(".partial") for part in parts):
        return "not whole"
    return "hidden" if any(part.startswith(".") for part in parts) else ""


def _is_weights(name: str) -> bool:
    return name != ARGUMENTS_FILE and any(fnmatchcase(name, pattern) for pattern in WEIGHTS) and "/" not in name


def _check_model(folder: Path, names: set[str]) -> None:
    if not (names & {*CONFIGS} and any(map(_is_weights, names))):
        checkpoints = _checkpoints(folder)
        if checkpoints and not any(map(_is_weights, names)):
            raise PushError(
                f"{folder} has checkpoints and no model: the run has not finished. Finish it, or push a checkpoint by "
                f"itself: {checkpoints[-1]}"
            )
        raise PushError(
            f"{folder} has no model: that would be {' or '.join(CONFIGS)}, and weights ({' or '.join(WEIGHTS)})"
        )
    for name in names & {*CONFIGS}:
        _read_object(folder / name)
    for name in names:
        if name.endswith(".index.json") and "/" not in name:
            shards = _read_object(folder / name).get("weight_map", {}).values()
            if missing := sorted({*shards} - names):
                raise PushError(f"{folder / name} names weights that are not there: {', '.join(missing)}")


def _check_whole(path: Path) -> None:
    """A training that was killed while it saved leaves less of a file than the file's own header tells of."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(min(length, size))
    try:
        ends = [each["data_offsets"][1] for name, each in json.loads(header).items() if name != "__metadata__"]
        end = max(ends, default=0)
    except (ValueError, LookupError, TypeError, AttributeError):
        end = -1
    if size != 8 + length + end:
        raise PushError(f"{path} is not whole, or no safetensors file: save it again, or push a checkpoint by itself")


def _add_card(plan: Plan, folder: Path, repo_id: str) -> None:
    names = {file.name for file in plan.files}
    if RESULTS_FILE in names:
        _read_object(folder / RESULTS_FILE)
    if CARD_FILE in names:
        _check_card(folder / CARD_FILE)
    elif RESULTS_FILE not in names:
        plan.notes.append(f"no model card: there is neither {CARD_FILE} nor {RESULTS_FILE}")
    else:
        try:
            card = str(WinOptModelCard.of_run(folder)).replace(FOLDER_OR_HUB_NAME, repo_id)
        except (ValueError, TypeError, AttributeError) as error:  # JSON, but not a recipe's
            raise PushError(
                f"no model card can be made of {folder / RESULTS_FILE}: {error}; write {folder / CARD_FILE} yourself"
            ) from error
        plan.files.append(File(CARD_FILE, folder / CARD_FILE, card.encode()))
        plan.notes.append(f"{CARD_FILE} is made of {RESULTS_FILE}")


def _check_card(path: Path) -> None:
    """The Hub refuses a card whose metadata is no YAML, but only once the weights have been sent."""
    from huggingface_hub import metadata_load
    from yaml import YAMLError

    try:
        metadata_load(path)
    except (ValueError, YAMLError) as error:
        raise PushError(f"the metadata of {path} cannot be read: {' '.join(str(error).split())}") from error


def _find_checkpoint(folder: Path, wanted: str | Path | None) -> Path:
    if wanted is None:
        found = [path for path in (folder, *_checkpoints(folder)) if _has_optimizer(path)]
        if not found:
            raise PushError(
                f"--with-optimizer: no checkpoint in {folder} has an optimizer's state; train with --save_strategy "
                "steps and without --save_only_model"
            )
        return found[-1]
    for path in (Path(wanted), folder / wanted):
        if path.is_dir():
            if _has_optimizer(path):
                return path
            raise PushError(f"checkpoint {wanted}: it has no optimizer's state")
    raise PushError(f"checkpoint {wanted}: no such folder, here or in {folder}")


def _checkpoints(folder: Path) -> list[Path]:
    found = [path for path in folder.glob(f"{CHECKPOINT}*") if path.name.removeprefix(CHECKPOINT).isdigit()]
    return sorted(filter(Path.is_dir, found), key=lambda path: int(path.name.removeprefix(CHECKPOINT)))


def _has_optimizer(folder: Path) -> bool:
    return any(fnmatchcase(path.name, pattern) for path in folder.iterdir() for pattern in _OPTIMIZER)


def _with_public_paths(file: File) -> File:
    """A file as it is pushed: where a training's best checkpoint and a model's origin lay is not said."""
    name = file.name.rpartition("/")[2]
    if name != STATE_FILE and not name.endswith("config.json"):
        return file
    content = file.path.read_bytes()
    try:
        public = (public_state if name == STATE_FILE else _public_origin)(content.decode()).encode()
    except (ValueError, AttributeError) as error:
        raise PushError(f"{file.path} is not the JSON that it should be: {error}") from error
    return file if public == content else File(file.name, file.path, public)


def _public_origin(content: str) -> str:
    config = json.loads(content)
    paths = [key for key in ("_name_or_path", "name_or_path") if os.path.isabs(str(config.get(key, "")))]
    if not paths:
        return content
    return json.dumps({**config, **{key: Path(config[key]).name for key in paths}}, indent=2) + "\n"


def _read_object(path: Path) -> dict:
    """What a JSON file holds."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PushError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise PushError(f"{path} must hold a JSON object")
    return value
