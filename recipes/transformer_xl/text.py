"""The text to learn from, as lines: WikiText from the Hub or a local copy, text files, or what every Python has."""

from __future__ import annotations

import ast
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from datasets import load_dataset

from hf_winopt.public import public_name
from recipes.common import RecipeError

EMBEDDED = "embedded"
SPLITS = ("train", "validation", "test")

# Of twenty modules the last two are for validation and for testing, so that no docstring is cut in two.
_MODULES_IN_TURN = 20


def load(dataset_name: str, config_name: str | None = None) -> dict[str, list[str]]:
    """The lines of each split.

    Args:
        dataset_name: "embedded"; a folder with `train.txt`, `validation.txt` and `test.txt`; otherwise what
            `load_dataset` takes, with a column `text`: `Salesforce/wikitext`, or a local copy in its layout.
        config_name: of that data set, `wikitext-103-raw-v1` for example.

    Raises:
        RecipeError: there is no such text, or a split of it is missing or empty.
    """
    folder = Path(dataset_name)
    if dataset_name == EMBEDDED:
        text = embedded()
    elif any((folder / f"{split}.txt").is_file() for split in SPLITS):
        text = {split: _lines(folder / f"{split}.txt") for split in SPLITS}
    else:
        text = _load_dataset(dataset_name, config_name)
    for split, lines in text.items():
        if not any(line.strip() for line in lines):
            raise RecipeError(f"{dataset_name}: the {split} text is empty")
    return text


def embedded() -> dict[str, list[str]]:
    """The docstrings of the standard library, a line a paragraph, in lower case, words and punctuation apart.

    Some 200,000 words; they differ a little from one Python to the next.
    """
    text: dict[str, list[str]] = {split: [] for split in SPLITS}
    modules = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    for index, path in enumerate(modules):
        turn = index % _MODULES_IN_TURN - (_MODULES_IN_TURN - len(SPLITS))
        text[SPLITS[max(0, turn)]] += _docstrings(path)
    return text


def _docstrings(path: Path) -> Iterator[str]:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(path.read_bytes())):
        docstring = ast.get_docstring(node) if isinstance(node, documented) else None
        for paragraph in (docstring or "").split("\n\n"):
            if words := re.findall(r"\w+|[^\w\s]", paragraph.lower()):
                yield " ".join(words)


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise RecipeError(f"there is no {path.name} in {path.parent}: it takes train.txt, validation.txt and test.txt")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # splitlines would cut at other characters too
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path.name} is not UTF-8: {error}") from None
    return lines[:-1] if lines[-1] == "" else lines


def _load_dataset(name: str, config: str | None) -> dict[str, list[str]]:
    try:
        data = load_dataset(name, config)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RecipeError(
            f"cannot load {name!r}{f', {config}' if config else ''}: {reason}\n"
            f"Without the network, give a local copy, a folder of text files, or --dataset_name {EMBEDDED}."
        ) from error
    missing = [split for split in SPLITS if split not in data or "text" not in data[split].column_names]
    if missing:
        raise RecipeError(f"{name}: no column 'text' in {' and '.join(missing)}; it has {', '.join(data)}")
    return {split: list(data[split]["text"]) for split in SPLITS}


def describe(dataset_name: str, config_name: str | None) -> dict[str, str | None]:
    """What a report says of the text: its name and where it is from."""
    if dataset_name == EMBEDDED:
        return {
            "name": "embedded",
            "title": "docstrings of Python's standard library",
            "config": None,
            "source": "embedded",
            "language": "en",
            "description": "The docstrings of the standard library of the Python that ran this, see "
            "`recipes/transformer_xl`. What comes out says nothing about WikiText.",
        }
    name = public_name(dataset_name)
    title = f"{Path(dataset_name).name}{f' {config_name}' if config_name else ''}"
    return {
        "name": name,
        "title": title,
        "config": config_name,
        "source": "local" if Path(dataset_name).exists() else "hub",
        "language": "en",
        "description": f"A language model of words, trained on `{name}`{f', `{config_name}`' if config_name else ''}.",
    }
