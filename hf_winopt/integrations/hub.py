"""The model card of a training: made of its `results.json` and of nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from hf_winopt.optim.registry import OPTIMIZERS

RESULTS_FILE = "results.json"
CARD_FILE = "README.md"

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
    def from_results(cls, results: Mapping[str, Any]) -> WinOptModelCard:
        """The card of a run.

        Args:
            results: as a recipe leaves them in `results.json`.

        Raises:
            ValueError: something is missing in them.
        """
        try:
            return cls.from_template(_metadata(results), str(cls.default_template_path), **_context(results))
        except KeyError as error:
            raise ValueError(f"the results have no {error.args[0]!r}: they are not those of a recipe") from error

    @classmethod
    def of_run(cls, folder: Path) -> WinOptModelCard:
        """The card of a run, from the folder that it left.

        Raises:
            ValueError: there are no results in it.
        """
        try:
            results = json.loads((folder / RESULTS_FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ValueError(f"{folder} has no {RESULTS_FILE}: no recipe has finished there") from None
        except ValueError as error:
            raise ValueError(f"{folder / RESULTS_FILE} is not valid JSON: {error}") from error
        if not isinstance(results, dict):
            raise ValueError(f"{folder / RESULTS_FILE} must hold an object")
        return cls.from_results(results)


def readable(metric: str) -> str:
    """A metric's name, for people."""
    return _METRICS.get(metric, metric.replace("_", " "))


def score(value: float | None) -> str:
    """A metric's value, for people."""
    return "undefined" if value is None or math.isnan(value) else f"{value:.4f}"


def _metadata(results: Mapping[str, Any]) -> ModelCardData:
    data, model, optimizer = results["dataset"], results["model"], results["optimizer"]
    scores = [
        EvalResult(
            task_type=results["pipeline"],
            dataset_type=data["name"],
            dataset_name=data["title"],
            dataset_config=data.get("config"),
            dataset_split=split,
            metric_type=metric,
            metric_value=value,
        )
        for split, values in results["metrics"].items()
        for metric, value in values.items()
        if value is not None
    ]
    return ModelCardData(
        language=data.get("language"),
        license=results.get("license"),
        library_name="transformers",
        pipeline_tag=results["pipeline"],
        tags=["hf-winopt", optimizer["name"]],
        datasets=[data["name"]] if data["source"] == "hub" else None,
        metrics=[metric for metric in next(iter(results["metrics"].values())) if metric != "loss"],
        base_model=model["name"] if model["source"] == "hub" else None,
        model_name=f"{model['name']} on {results['task']}",
        eval_results=scores,
    )


def _context(results: Mapping[str, Any]) -> dict[str, Any]:
    """What the template asks for."""
    optimizer, row = results["optimizer"], OPTIMIZERS.get(results["optimizer"]["name"])
    step, state = results["seconds_per_step"], results.get("state_bytes")
    resumed = results["resumed_at_step"]
    return {
        **{name: results[name] for name in ("task", "dataset", "model", "optimizer", "command")},
        **{name: results.get(name) for name in ("comparison", "usage")},
        "headline": readable(results["headline"]),
        "score_table": _table(("split", "metric", "value"), _score_rows(results["metrics"])),
        "paper": row and row.paper,
        "formula": row and row.formula,
        "state_bytes": state,
        "state_megabytes": state and f"{state / 1e6:,.1f}",
        "option_table": _table(("option", "value"), _code(optimizer["options"])),
        "setting_table": _table(("setting", "value"), _code(results["training"])),
        "wall_seconds": f"{results['wall_seconds']:.0f}",
        "resumed": f" from step {resumed} on" if resumed else "",
        "step": "a step not measured" if step is None else f"{1000 * step:.1f} ms a step (median)",
        "versions": ", ".join(f"{name} {number}" for name, number in results["versions"].items()),
        "machine": ", ".join(f"{key} {value}" for key, value in results["machine"].items() if value is not None),
    }


def _score_rows(metrics: Mapping[str, Mapping[str, float | None]]) -> list[tuple[str, str, str]]:
    return [
        (split, readable(metric), score(value)) for split, scores in metrics.items() for metric, value in scores.items()
    ]


def _code(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, f"`{value}`") for name, value in values.items()]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines) + "\n"
