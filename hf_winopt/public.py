"""What may be shown to others of command lines and messages: no secret, and of a path elsewhere only its last part."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def public_name(name: str) -> str:
    """A Hub name as it is; of a local folder only the last part."""
    return Path(name).resolve().name if Path(name).exists() else name


def is_secret(option: str) -> bool:
    """Whether what follows this option of a command line is nobody else's business."""
    name = option.lstrip("-").replace("-", "_").lower()
    return bool(re.search(r"(^|_)(hub|auth|access|api|hf)_token$|^token$|_(api|access)_key$|password|secret", name))


def public_command(program: Sequence[str], argv: Iterable[str]) -> str:
    """`program` and `argv` as a shell takes them: without secrets, and of paths elsewhere only the last part."""
    words, secret = list(program), False
    for word in argv:
        if word.startswith("--"):
            secret = is_secret(word.partition("=")[0])
        if not secret:
            option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
            words.append(shlex.quote(option + equals + public_text(public_path(value))))
    return " ".join(words)


def public_text(text: str) -> str:
    """A message with every absolute path in it as `public_path` shows it."""
    return re.sub(r"(?:(?<=file://)|(?<![\w/.-]))/[\w.@+=-]+(?:/[\w.@+=-]+)+", lambda path: public_path(path[0]), text)


def public_path(value: str) -> str:
    """A path below the current folder or this package's, from there; of any other only the last part."""
    path = Path(value)
    if not path.is_absolute() and ".." not in path.parts:
        return value
    for home in (Path.cwd(), ROOT):
        if home != Path(home.anchor) and path.resolve().is_relative_to(home):
            return str(path.resolve().relative_to(home))
    return f"PATH_TO/{path.name}"
