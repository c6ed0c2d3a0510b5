"""`"key=value,other=1:2"` into typed values, by the hints of whatever will receive them."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from inspect import Parameter
from typing import Any, Literal, Union, get_args, get_origin

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_WORDS = {"true": True, "false": False, "none": None}
_UNIONS = (Union, types.UnionType)
_NO_FIT = (ValueError, KeyError)  # what a conversion below raises for a text that it cannot take


def pieces(said: str | Mapping[str, Any] | None) -> Iterator[tuple[str, Any]]:
    """The (key, value) pairs of `"key=value,other=1:2"`, or of a dict; none of an empty one.

    Raises:
        ValueError: neither, a piece that is not of that form, or a key that comes twice.
    """
    if isinstance(said, Mapping):
        yield from said.items()
    elif isinstance(said, str):
        yield from _pieces_of(said)
    elif said is not None:
        raise ValueError(f"optim_args must be a text 'key=value,other=1:2' or a dict; got {said!r}")


def _pieces_of(text: str) -> Iterator[tuple[str, str]]:
    seen = set()
    for piece in text.split(",") if text else ():
        key, _, value = (part.strip() for part in piece.partition("="))
        if not key or not value or "=" in value:
            raise ValueError(f"optim_args: {piece.strip()!r} is not of the form key=value, in {text!r}")
        if key in seen:
            raise ValueError(f"optim_args: {key} is given twice, in {text!r}")
        seen.add(key)
        yield key, value


def from_text(text: str, parameter: Parameter) -> Any:
    """`text` as the value of `parameter`; raises ValueError where it cannot be one."""
    hint = hint_of(parameter)
    try:
        return _parse(text, hint)
    except _NO_FIT:
        separated = " separated by ':' (commas separate options)" if _length(hint) else ""
        raise ValueError(f"{text!r} is not {_describe(hint)}{separated}") from None


def from_value(value: Any, parameter: Parameter) -> Any:
    """A value that is typed already: a list becomes a tuple, whose length must be right."""
    if isinstance(value, str):
        return from_text(value, parameter)  # YAML takes 1e-3 for a text
    if not isinstance(value, (list, tuple)):
        return value
    hint = hint_of(parameter)
    if _length(hint) not in (None, len(value)):
        raise ValueError(f"{' '.join(map(str, value))} is not {_describe(hint)}")
    return tuple(value)


def hint_of(parameter: Parameter) -> Any:
    """The annotation, or what the default value says where there is none; `Any` where neither helps."""
    hint, default = parameter.annotation, parameter.default
    if hint is not Parameter.empty and not isinstance(hint, str):
        return hint
    if isinstance(default, (bool, float, str)):
        return type(default)
    if isinstance(default, tuple) and default:
        return tuple[(Any,) * len(default)]  # type: ignore[misc]
    return Any  # for an int as well: `momentum=0` means a number


def _parse(text: str, hint: Any) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is bool:
        return _BOOLEANS[text.lower()]
    if hint in (int, float, str):
        return hint(text)
    if origin is Literal:
        return {str(choice): choice for choice in arguments}[text]
    if origin in _UNIONS:
        return _first_fit(text, arguments)
    if isinstance(origin, type) and issubclass(origin, Sequence):
        parts = text.split(":")
        each = arguments if _length(hint) is not None else arguments[:1] * len(parts)
        return tuple(_parse(part, argument) for part, argument in zip(parts, each, strict=True))
    return _guess(text)


def _first_fit(text: str, hints: Sequence[Any]) -> Any:
    """By the first of a union's hints that fits; `str` comes last, since everything fits it."""
    if type(None) in hints and text.lower() == "none":
        return None
    for hint in sorted(hints, key=lambda hint: hint is str):
        if hint is not type(None):
            try:
                return _parse(text, hint)
            except _NO_FIT:
                continue
    raise ValueError


def _guess(text: str) -> Any:
    """A number, a boolean, none, a tuple of numbers, otherwise the text."""
    for convert in (int, float, _WORDS.__getitem__):
        try:
            return convert(text.lower())
        except _NO_FIT:
            continue
    parts = tuple(map(_guess, text.split(":"))) if ":" in text else ()
    return parts if parts and all(isinstance(part, (int, float)) for part in parts) else text


def _length(hint: Any) -> int | None:
    """How many values a fixed-length tuple has (also an optional one); None for anything else."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in _UNIONS:
        return max((_length(choice) or 0 for choice in arguments), default=0) or None
    return len(arguments) if origin is tuple and Ellipsis not in arguments else None


def _describe(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in _UNIONS:
        return " or ".join("none" if choice is type(None) else _describe(choice) for choice in arguments)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if (length := _length(hint)) is not None:
        return f"{length} values"
    words = {bool: "true or false", int: "a whole number", float: "a number"}
    return words.get(hint) or f"a {getattr(hint, '__name__', hint)}"
