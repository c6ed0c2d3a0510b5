"""What a training with Trainer, in whatever script, has to say: the content of its `results.json`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from transformers.modelcard import TrainingSummary

from hf_winopt.compare.recorder import state_bytes
from hf_winopt.integrations.hub import EVALUATION, FOLDER_OR_HUB_NAME
from hf_winopt.integrations.results import (
    Results,
    describe_optimizer,
    describe_training,
    environment,
    is_score,
    split_log,
)
from hf_winopt.integrations.timing import StepTimer
from hf_winopt.public import own_command, public_name

_RUNTIME = "runtime"  # what every evaluation logs, after the prefix of its metrics


def results_of(
    trainer: Any, timer: StepTimer, wall_seconds: float, said: Mapping[str, Any], *, finished: bool
) -> Results:
    """The results of a Trainer that trains, or has trained.

    Args:
        trainer: a `transformers.Trainer`; only its main process need ask.
        timer: of its steps.
        wall_seconds: of the training so far.
        said: what a script gives `trainer.create_model_card` or `trainer.push_to_hub`, by the same names; what it does
            not say is found out as Trainer does for its own card.
        finished: whether the training has ended.
    """
    args, state, model = trainer.args, trainer.state, trainer.accelerator.unwrap_model(trainer.model)
    card = _card_facts(trainer, said)
    prefixes = _prefixes(state.log_history, trainer.eval_dataset)
    best = _best(args, state) if finished else None
    last = _last_evaluations(state.log_history, prefixes, best)
    metrics = {split: scores for split, (_, scores) in last.items()}
    names = list(dict.fromkeys(name for scores in metrics.values() for name in scores if name != "loss"))
    return {
        "name": card.get("model_name"),
        "task": card["title"],
        "license": card.get("license"),
        "library": "peft" if _is_adapter(model) else "transformers",
        "tags": [*_listed(card.get("tags")), *_adapter_tags(model)],
        "usage": _usage(model, trainer),
        "pipeline": next(iter(_listed(card.get("tasks"))), None),
        "dataset": card["dataset"],
        "model": _model_facts(model, card.get("finetuned_from") or None),
        "optimizer": describe_optimizer(trainer.optimizer, args),
        "training": describe_training(args, state.max_steps) | _examples(trainer.train_dataset),
        "headline": next(iter(names), "loss") if metrics else None,
        "metrics": metrics,
        "best": best,
        "scored_at_step": min((step for step, _ in last.values()), default=None),
        "history": split_log(state.log_history, prefixes, names),
        "wall_seconds": wall_seconds,
        "seconds_per_step": timer.median,
        "state_bytes": state_bytes(trainer.optimizer),
        "comparison": None,
        "resumed_at_step": state.global_step - len(timer.seconds),
        "step": state.global_step,
        "finished": finished,
        **environment("peft" if _is_adapter(model) else None),
        "command": own_command(args.world_size),
    }


def _card_facts(trainer: Any, said: Mapping[str, Any]) -> dict[str, Any]:
    """What the script said and Trainer finds out, the data under `dataset` and, for people, `title`."""
    facts = dict(said)
    if hasattr(trainer.model, "config"):
        with suppress(OSError):  # it asks the Hub for the licence of the base model
            facts |= vars(TrainingSummary.from_trainer(trainer, **said))
    # Trainer takes what it read the data with for the data: "parquet", "imagefolder".
    name = next(iter(_listed(said.get("dataset_tags"))), None) or _hub_name(trainer.train_dataset)
    title = ", ".join(_listed(said.get("dataset"))) or name
    count = _examples(trainer.train_dataset).get("train_examples")
    many = "examples" if count is None else f"{count:,} examples"
    dataset = {
        "name": name,
        "config": next(iter(_listed(said.get("dataset_args"))), None) or _config(trainer.train_dataset, name),
        "source": "hub" if name else "unknown",
        "title": title,
        "language": facts.get("language"),
        "description": f"Trained on {many}{f' of {title}' if title else '; of what, the script did not say'}.",
    }
    return {**facts, "tags": said.get("tags"), "dataset": dataset, "title": title}


def _model_facts(model: Any, base: str | None) -> dict[str, Any]:
    if base is None:
        origin = {"name": type(model).__name__, "source": "scratch"}
    else:
        here = os.path.isabs(base) or os.path.exists(base)
        origin = {"name": public_name(base), "source": "local" if here else "hub"}
    return origin | {
        "class": type(model).__name__,
        "parameters": _count(model.parameters()),
        "trained_parameters": _count(p for p in model.parameters() if p.requires_grad),
    }


def _listed(value: str | Sequence[str] | None) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def _hub_name(dataset: Any) -> str | None:
    """Where on the Hub a `datasets.Dataset` was loaded from."""
    for source in getattr(getattr(dataset, "info", None), "download_checksums", None) or ():
        if found := re.match(r"hf://datasets/([^@]+)@", str(source)):
            return found[1]
    return None


def _config(dataset: Any, name: str | None) -> str | None:
    return getattr(dataset, "config_name", None) if name is not None and name == _hub_name(dataset) else None


def _examples(dataset: Any) -> dict[str, int]:
    return {"train_examples": len(dataset)} if hasattr(dataset, "__len__") else {}


def _count(parameters: Iterable[Any]) -> int:
    return sum(getattr(p, "ds_numel", p.numel()) for p in parameters)  # DeepSpeed's, of one that is not all here


def _usage(model: Any, trainer: Any) -> str | None:
    """How a model of transformers' own, or a PEFT adapter, is loaded; what another takes is not known here."""
    kind = type(model)
    name, package = kind.__name__, kind.__module__.partition(".")[0]
    if package not in ("transformers", "peft"):
        return None
    if package == "peft":
        name = f"Auto{name}"
    where = getattr(trainer, "hub_model_id", None) or FOLDER_OR_HUB_NAME
    return f'from {package} import {name}\n\nmodel = {name}.from_pretrained("{where}")'


def _is_adapter(model: Any) -> bool:
    return type(model).__module__.startswith("peft.")


def _adapter_tags(model: Any) -> list[str]:
    """The kinds of its adapters: "lora"."""
    kinds = {config.peft_type for config in model.peft_config.values()} if _is_adapter(model) else ()
    return sorted(str(getattr(kind, "value", kind)).lower() for kind in kinds)


# ------------------------------------------------------------------------------------------------ evaluations


def _prefixes(log: Iterable[Mapping[str, Any]], eval_dataset: Any) -> dict[str, str]:
    """What stands before the metrics of each data split in Trainer's log; the splits in order of appearance."""
    found = dict.fromkeys(key.removesuffix(_RUNTIME) for entry in log for key in entry if key.endswith(f"_{_RUNTIME}"))
    found.pop("train_", None)
    return {_split(prefix, eval_dataset): prefix for prefix in found}


def _split(prefix: str, eval_dataset: Any) -> str:
    if prefix == "eval_":
        # That of a part, "train[:10%]", says more than a word can that is a name of a split.
        return str(getattr(eval_dataset, "split", None) or EVALUATION)
    return prefix.removeprefix("eval_").rstrip("_")


def _best(args: Any, state: Any) -> dict[str, Any] | None:
    """The step that Trainer has gone back to at the end, and by what it was chosen."""
    if not args.load_best_model_at_end or state.best_global_step is None:
        return None
    return {"step": state.best_global_step, "metric": args.metric_for_best_model}


def _last_evaluations(
    log: Sequence[Mapping[str, Any]], prefixes: Mapping[str, str], best: Mapping[str, Any] | None
) -> dict[str, tuple[int, dict[str, float]]]:
    """Step and scores of the evaluation of the model as it is now, for each split that was evaluated.

    Of a model that Trainer has put back to its best, that of the best, unless there is one after the training.
    """
    last = {}
    trained = max((index for index, entry in enumerate(log) if "train_runtime" in entry), default=len(log))
    for split, prefix in prefixes.items():
        entries = [(index, entry) for index, entry in enumerate(log) if f"{prefix}{_RUNTIME}" in entry]
        if best is not None and entries[-1][0] < trained:
            entries = [pair for pair in entries if pair[1]["step"] == best["step"]] or entries
        entry = entries[-1][1]
        scores = {key.removeprefix(prefix): value for key, value in entry.items() if is_score(key, prefix, value)}
        last[split] = (entry["step"], {name: scores[name] for name in sorted(scores, key=lambda name: name == "loss")})
    return last
