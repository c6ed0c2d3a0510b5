"""What a model was trained from and on: as a script says it to Trainer, and as Trainer finds out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers.modelcard import TrainingSummary
from transformers.trainer_utils import has_length

from hf_winopt.integrations.hub import FOLDER_OR_HUB_NAME
from hf_winopt.public import public_path, public_text


def card_facts(trainer: Any, said: Mapping[str, Any], *, ask_hub: bool) -> dict[str, Any]:
    """`name`, `task`, `license`, `tags`, `pipeline` and `dataset` of a card's results, and `base`, the base model.

    Args:
        trainer: a `transformers.Trainer`.
        said: what a script gives `trainer.create_model_card`, by the same names.
        ask_hub: whether the Hub may be asked for the licence of the base model, which can take its time.
    """
    said = {key: _public(value) for key, value in said.items()}
    facts: dict[str, Any] = dict(said)
    if hasattr(trainer.model, "config"):
        with suppress(OSError):  # no Hub to ask
            asked = said if ask_hub else {**said, "license": said.get("license") or ""}
            facts |= vars(TrainingSummary.from_trainer(trainer, **asked))
    # Trainer takes what it read the data with for the data: "parquet", "imagefolder".
    on_hub = _hub_name(trainer.train_dataset)
    names = _listed(said.get("dataset_tags")) or _listed(on_hub)
    title = ", ".join(_listed(said.get("dataset")) or names) or None
    count = examples(trainer.train_dataset).get("train_examples")
    many = "examples" if count is None else f"{count:,} examples"
    here = any(os.path.exists(each) or "PATH_TO/" in each for each in names)
    return {
        "name": facts.get("model_name"),
        "task": title,
        "license": facts.get("license") or None,
        "tags": _listed(said.get("tags")),
        "pipeline": next(iter(_listed(facts.get("tasks"))), None),
        "base": facts.get("finetuned_from") or None,
        "dataset": {
            "name": next(iter(names), None),
            "names": names,
            "config": next(iter(_listed(said.get("dataset_args"))), None)
            or (_config(trainer.train_dataset) if on_hub in names else None),
            "source": "local" if here else "hub" if names else "unknown",
            "title": title,
            "language": facts.get("language"),
            "description": f"Trained on {many}{f' of {title}' if title else '; of what, the script did not say'}.",
        },
    }


def model_facts(model: Any, base: str | None) -> dict[str, Any]:
    """What results and card say of the model; `base` is the name that it was loaded by, if that is known."""
    if base is None:
        origin = {"name": type(model).__name__, "source": "unknown"}
    else:
        here = os.path.isabs(base) or os.path.exists(base)
        origin = {"name": Path(base).resolve().name if here else base, "source": "local" if here else "hub"}
    return origin | {
        "class": type(model).__name__,
        "parameters": _count(model.parameters()),
        "trained_parameters": _count(p for p in model.parameters() if p.requires_grad),
    }


def examples(dataset: Any) -> dict[str, int]:
    """How many there are, where that is known."""
    return {"train_examples": len(dataset)} if dataset is not None and has_length(dataset) else {}


def usage(model: Any, trainer: Any) -> str | None:
    """How a model of transformers' own, or a PEFT adapter, is loaded; what another takes is not known here."""
    kind = type(model)
    name, package = kind.__name__, kind.__module__.partition(".")[0]
    if package not in ("transformers", "peft"):
        return None
    if package == "peft":
        name = f"Auto{name}"
    where = getattr(trainer, "hub_model_id", None) or FOLDER_OR_HUB_NAME
    return f'from {package} import {name}\n\nmodel = {name}.from_pretrained("{where}")'


def is_adapter(model: Any) -> bool:
    """Whether a model is one of PEFT's."""
    return type(model).__module__.startswith("peft.")


def adapter_tags(model: Any) -> list[str]:
    """The kinds of its adapters: "lora"."""
    kinds = {config.peft_type for config in model.peft_config.values()} if is_adapter(model) else ()
    return sorted(str(getattr(kind, "value", kind)).lower() for kind in kinds)


def _public(value: Any) -> Any:
    """What a script says, without the paths and tokens that may be in it: a data set is often a local folder."""
    if isinstance(value, str):
        return public_text(public_path(value) if os.path.isabs(value) else value)
    return [_public(each) for each in value] if isinstance(value, (list, tuple)) else value


def _listed(value: str | Sequence[str] | None) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def _hub_name(dataset: Any) -> str | None:
    """Where on the Hub a `datasets.Dataset` was loaded from."""
    for source in getattr(getattr(dataset, "info", None), "download_checksums", None) or ():
        if found := re.match(r"hf://datasets/([^@]+)@", str(source)):
            return found[1]
    return None


def _config(dataset: Any) -> str | None:
    return getattr(dataset, "config_name", None)


def _count(parameters: Iterable[Any]) -> int:
    return sum(getattr(p, "ds_numel", p.numel()) for p in parameters)  # DeepSpeed's, of one that is not all here
