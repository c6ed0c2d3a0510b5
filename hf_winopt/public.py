"""What may be shown to others of command lines and messages: no secret, and of a path elsewhere only its last part."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def public_name(name: str) -> str:
    """A Hub name as it is; of a local folder only the last part."""
    return Path(name).resolve().name if Path(name).is_absolute() or Path(name).exists() else name


def is_secret(option: str) -> bool:
    """Whether the value of this option, field or variable is nobody else's business."""
    name = re.sub(r"[-.]", "_", option.lstrip("-+")).lower()
    if re.search(r"(^|_)(bos|cls|eos|image|mask|pad|sep|unk)_token$", name):  # of a tokenizer
        return False
    of_some = r"(^|_)(tok|toke|token|tokens|auth|api_?key|access_key|private_key|(wandb|openai|comet|neptune)_key)$"
    return bool(re.search(rf"{of_some}|passw|secret|credential", name))


def program(processes: int = 1) -> list[str]:
    """How a script is started that is to run as so many processes."""
    return ["python"] if processes == 1 else ["accelerate", "launch", "--num_processes", str(processes)]


def own_command(processes: int = 1) -> str | None:
    """The command line of this process, one of so many, as `public_command` shows it.

    None for a notebook, and for what was typed in.
    """
    words = iter(sys.orig_argv[1:])
    for word in words:
        if word == "-m" or not word.startswith("-"):
            break
        if word in ("-c", "-"):
            return None
        if word in ("-X", "-W"):
            next(words, None)
    else:
        return None
    if word == "-m":
        module = next(words, "")
        return None if _is_console(module) else public_command([*program(processes), "-m", module], words)
    if _is_console(Path(word).name):
        return None
    if Path(word).parent == Path(sys.executable).parent and processes == 1:  # a console script, as hf-winopt itself is
        return public_command([Path(word).name], words)
    return public_command(program(processes), [word, *words])


def _is_console(name: str) -> bool:
    return "kernel" in name or name.startswith("ipython")


def public_command(program: Sequence[str], argv: Iterable[str]) -> str:
    """`program` and `argv` as a shell takes them: without secrets, and of paths elsewhere only the last part."""
    words, secret = list(program), False
    for word in argv:
        option, equals, value = word.partition("=") if re.match(r"-{1,2}[^\W\d]|[\w.]+=", word) else ("", "", word)
        if option.startswith("-"):
            secret = is_secret(option)
        if secret or is_secret(option):
            continue
        words.append(shlex.quote(option + equals + public_text(public_path(value))))
    return " ".join(words)


def wrapped(command: str, width: int = 100) -> str:
    """A command in lines of a width that can be read, an option and its values in one."""
    lines, parts = [""], [""]
    for word in re.findall(r"""(?:[^\s'"]|'[^']*'|"[^"]*")+""", command):
        if word.startswith("--"):
            parts.append("")
        parts[-1] += f" {word}"
    for part in filter(None, parts):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("   ")
        lines[-1] += part
    return " \\\n".join(lines).strip()


def public_text(text: str) -> str:
    """A message with every absolute path in it as `public_path` shows it, and no token of the Hub."""
    text = re.sub(r"\bhf_[A-Za-z0-9]{20,}\b", "hf_TOKEN", text)
    text = re.sub(r"(?<=://)[^/\s@]+@", "", text)  # a name and a password
    text = re.sub(r"""(["'])([\w.-]+)\1(\s*:\s*)(["'])[^"']*\4""", _without_secret, text)  # in JSON
    return re.sub(r"(?:(?<=file://)|(?<![\w/.-]))/[\w.@+=-]+(?:/[\w.@+=-]+)+", lambda path: public_path(path[0]), text)


def _without_secret(pair: re.Match[str]) -> str:
    quote, name, colon, other, value = pair[1], pair[2], pair[3], pair[4], pair[0]
    return f"{quote}{name}{quote}{colon}{other}SECRET{other}" if is_secret(name) else value


def public_path(value: str) -> str:
    """A path below the current folder or this package's, from there; of any other only the last part."""
    path = Path(value)
    if not path.is_absolute() and ".." not in path.parts:
        return value
    for home in (Path.cwd(), ROOT):
        if home != Path(home.anchor) and path.resolve().is_relative_to(home):
            return str(path.resolve().relative_to(home))
    return f"PATH_TO/{path.name}"
