"""The model card of a training: made of its `results.json` and of nothing else."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from hf_winopt.compare.figures import duration
from hf_winopt.files import plain
from hf_winopt.optim import COMPOSED
from hf_winopt.optim.registry import OPTIMIZERS
from hf_winopt.public import wrapped

RESULTS_FILE = "results.json"
CARD_FILE = "README.md"
CURVES_FILE = "curves.png"

EVALUATION = "evaluation"
"""What stands for a split of the data whose name is not known."""
TAG = "hf-winopt"
FOLDER_OR_HUB_NAME = "FOLDER_OR_HUB_NAME"
"""Stands in the results' `usage` as long as nobody knows where the model will be."""

_METRICS = {
    "f1": "F1",
    "matthews_correlation": "Matthews correlation",
    "pearson": "Pearson correlation",
    "spearmanr": "Spearman correlation",
}


class WinOptModelCard(ModelCard):
    """A card that says what was trained, on what, how, and what came out; what was not measured is not in it.

    `model_cards/template.md` of this project shows its parts.
    """

    default_template_path = Path(__file__).with_name("card_template.md")

    @classmethod
    def from_results(cls, results: Mapping[str, Any], *, drawn: bool = True) -> WinOptModelCard:
        """The card of a run.

        Args:
            results: as a training leaves them in `results.json`.
            drawn: whether there is a `curves.png` beside the card.

        Raises:
            ValueError: something is missing in them.
        """
        results = plain(results)  # YAML has no word for numbers of numpy's
        try:
            context = {**_context(results), "drawn": drawn}
            card = cls.from_template(_metadata(results), str(cls.default_template_path), **context)
            card.content = card.content.rstrip("\n") + "\n"
            return card
        except KeyError as error:
            raise ValueError(f"the results have no {error.args[0]!r}: they are not those of a training") from error

    @classmethod
    def of_run(cls, folder: Path) -> WinOptModelCard:
        """The card of a run, from the folder that it left.

        Raises:
            ValueError: there are no results in it.
        """
        return cls.from_results(read_results(folder), drawn=(folder / CURVES_FILE).exists())


def read_results(folder: Path) -> dict[str, Any]:
    """What a training has left in a folder to say.

    Raises:
        ValueError: there are no results in it.
    """
    file = folder / RESULTS_FILE
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{folder} has no {RESULTS_FILE}: no training has left any there") from None
    except ValueError as error:
        raise ValueError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(results, dict):
        raise ValueError(f"{file} must hold an object")
    return results


def readable(metric: str) -> str:
    """A metric's name, for people."""
    return _METRICS.get(metric, metric.replace("_", " "))


def drawn_as(metric: str) -> str:
    """Its name beside a curve of the training loss."""
    return "evaluation loss" if metric == "loss" else readable(metric)


def score(value: float | None) -> str:
    """A metric's value, for people."""
    if value is None or math.isnan(value):
        return "undefined"
    return f"{value:.4f}" if abs(value) < 100 else f"{value:.1f}"


def _metadata(results: Mapping[str, Any]) -> ModelCardData:
    data, model, optimizer = results["dataset"], results["model"], results["optimizer"]
    # The Hub takes no result without its task and its data.
    indexed = results["metrics"].items() if results["pipeline"] and data["name"] else ()
    scores = [
        EvalResult(
            task_type=results["pipeline"],
            # Names that say where data is made or lies ("embedded") stand for several sets of it.
            dataset_type=data["name"] if data["source"] == "hub" else _slug(data["title"]),
            dataset_name=data["title"],
            dataset_config=data.get("config"),
            dataset_split=None if split == EVALUATION else split,
            metric_type=metric,
            metric_name=readable(metric),
            metric_value=value,
        )
        for split, values in indexed
        for metric, value in values.items()
        if value is not None
    ]
    return ModelCardData(
        language=data.get("language"),
        license=results.get("license"),
        library_name=results.get("library", "transformers"),
        pipeline_tag=results["pipeline"],
        tags=[TAG, optimizer["name"], *results.get("tags", ())],
        datasets=data.get("names", [data["name"]]) if data["source"] == "hub" else None,
        metrics=[metric for metric in next(iter(results["metrics"].values()), ()) if metric != "loss"] or None,
        base_model=model["name"] if model["source"] == "hub" else None,
        model_name=(results.get("name") or _title(results)) if scores else None,
        eval_results=scores or None,
    )


_STATE_FORMS = {
    "compact": ", that of large matrices in 16 and 8 bits (`state=compact`)",
    "8bit": ", that of large matrices in 8 bits (`state=8bit`)",
}
"""What a card says of state that is kept in fewer bytes than float32."""


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _title(results: Mapping[str, Any]) -> str:
    return " on ".join(filter(None, (results["model"]["name"], results["task"])))


def _context(results: Mapping[str, Any]) -> dict[str, Any]:
    """What the template asks for."""
    optimizer, name = results["optimizer"], results["optimizer"]["name"]
    row = OPTIMIZERS.get(name) or COMPOSED.get(name)
    step, state = results["seconds_per_step"], results.get("state_bytes")
    resumed, model = results["resumed_at_step"], results["model"]
    return {
        **{name: results[name] for name in ("dataset", "optimizer")},
        "command": results["command"] and wrapped(results["command"], width=80),
        **{name: results.get(name) for name in ("comparison", "usage")},
        "title": _title(results),
        "state_of_training": _state_of_training(results),
        "curves": _curves(results),
        "score_table": results["metrics"] and _table(("split", "metric", "value"), _score_rows(results["metrics"])),
        "paper": row and row.paper,
        "formula": row and re.sub(r"(\d) (.+?)(?=, \d|$)", r"\1 (\2)", row.formula),
        "state_bytes": state,
        "state_megabytes": state and f"{state / 1e6:,.1f}",
        "state_form": _STATE_FORMS.get(optimizer["options"].get("state"), ""),
        "trained_parameters": _trained(model),
        "parameters": f"{model['parameters']:,}",
        "option_table": _table(("option", "value"), _code(optimizer["options"])),
        "setting_table": _table(("setting", "value"), _code(results["training"])),
        "wall_time": duration(results["wall_seconds"]),
        "resumed": f" from step {resumed} on" if resumed else "",
        "step": "the time of a step was not measured" if step is None else f"{1000 * step:.1f} ms a step (median)",
        "versions": ", ".join(f"{name} {number}" for name, number in results["versions"].items()),
        "machine": ", ".join(f"{key} {value}" for key, value in results["machine"].items() if value is not None),
    }


def _state_of_training(results: Mapping[str, Any]) -> str | None:
    """What a reader must know of a model that is not at the end of its training, and of scores from before it."""
    step, steps = results.get("step"), results["training"].get("steps")
    scored, best = results.get("scored_at_step"), results.get("best")
    said = []
    if step is not None and step < steps:
        finished = results.get("finished", True)
        said.append(f"{'Stopped at' if finished else '**Not finished**: this is'} step {step} of {steps}.")
    if best is not None and best["step"] != step:
        said.append(f"The weights are those of step {best['step']}, chosen by {best['metric']}.")
    elif scored != step and scored is not None:
        said.append(f"The scores are those of step {scored}.")
    if any(scores.get("loss", 0) is None for scores in results["metrics"].values()):
        said.append("**The training diverged**: the loss is no number.")
    return " ".join(said) or None


def _curves(results: Mapping[str, Any]) -> str:
    """What is on the picture."""
    shown = ["Training loss"] * bool(results["history"]["train"])
    headline = results["headline"]
    if any(headline in entry for entry in results["history"]["evaluation"]):
        shown.append(drawn_as(headline))
    return " and ".join(shown)


def _trained(model: Mapping[str, Any]) -> str | None:
    """How many of its parameters were trained, if not all."""
    trained = model.get("trained_parameters", model["parameters"])
    return None if trained == model["parameters"] else f"{trained:,}"


def _score_rows(metrics: Mapping[str, Mapping[str, float | None]]) -> list[tuple[str, str, str]]:
    return [
        (split, readable(metric), score(value)) for split, scores in metrics.items() for metric, value in scores.items()
    ]


def _code(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is off says nothing."""
    return [(name, f"`{value}`") for name, value in values.items() if value is not None and value is not False]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines) + "\n"
