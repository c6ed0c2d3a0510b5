"""The metadata on top of a README.md: what the Hub refuses and what it only remarks on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

_LICENSES = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m afl-3.0
artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0
cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0
cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0
epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc llama2 llama3
llama3.1 llama3.2 llama3.3 gemma lppl-1.3c ms-pl mpl-2.0 odc-by odbl openmdw-1.0 openrail++ osl-3.0 postgresql ofl-1.1
ncsa unlicense zlib pddl unknown other
"""
_FRONT = re.compile(r"\A\s*---[ \t]*\r?\n(?P<yaml>.*?)(?:\r?\n)?---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_TEXTS = ("language", "license", "tags", "datasets", "metrics", "base_model")
_TEXT = ("library_name", "pipeline_tag", "license_name", "license_link", "thumbnail")


def metadata(content: str) -> Any:
    """The metadata of a card, None where it has none; not YAML at all raises."""
    match = _FRONT.match(content)
    return yaml.safe_load(match["yaml"]) if match else None


def validate(content: str) -> tuple[list[str], list[str]]:
    """Errors and warnings about a card."""
    try:
        data = metadata(content)
    except yaml.YAMLError as error:
        return [f"invalid YAML: {error}"], []
    if data is None or data == {}:
        return [], ["empty or missing yaml metadata in repo card"]
    if not isinstance(data, dict):
        return ["the metadata must be a mapping"], []
    return [*_fields(data), *_results(data.get("model-index"))], []


def _fields(data: dict[str, Any]) -> Iterator[str]:
    for key in _TEXTS:
        value = data.get(key)
        if not (value is None or isinstance(value, str) or _is_list(value, str)):
            yield f'"{key}" must be a string or a list of strings'
    for key in _TEXT:
        if not isinstance(data.get(key), str | None):
            yield f'"{key}" must be a string'
    licenses = data.get("license")
    for each in licenses if isinstance(licenses, list) else [licenses]:
        if isinstance(each, str) and each not in _LICENSES.split():
            yield f'"license" must be one of the known identifiers, not {each}'


def _results(index: Any) -> Iterator[str]:
    """The shape in which the Hub reads evaluation results."""
    if index is None:
        return
    if not _is_list(index, dict):
        yield '"model-index" must be a list of mappings'
        return
    for i, model in enumerate(index):
        where = f'"model-index[{i}]'
        if not isinstance(model.get("name"), str):
            yield f'{where}.name" is required'
        if not _is_list(model.get("results"), dict):
            yield f'{where}.results" is required'
            continue
        for j, result in enumerate(model["results"]):
            yield from _result(result, f"{where}.results[{j}]")


def _result(result: dict[str, Any], where: str) -> Iterator[str]:
    for key, needed in {"task": ["type"], "dataset": ["type", "name"]}.items():
        part = result.get(key)
        for name in needed:
            if not (isinstance(part, dict) and isinstance(part.get(name), str)):
                yield f'{where}.{key}.{name}" is required'
    if not _is_list(result.get("metrics"), dict):
        yield f'{where}.metrics" is required'
        return
    for k, metric in enumerate(result["metrics"]):
        if not isinstance(metric.get("type"), str):
            yield f'{where}.metrics[{k}].type" is required'
        if metric.get("value") is None:
            yield f'{where}.metrics[{k}].value" is required'


def _is_list(value: Any, of: type) -> bool:
    return isinstance(value, list) and all(isinstance(each, of) for each in value)
