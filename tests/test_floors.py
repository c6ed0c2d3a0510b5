"""The floors of the house: a module imports from its own and those below, and nothing that imports it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import hf_winopt

ROOT = Path(hf_winopt.__file__).parent
FLOORS = {
    "rules": 1,
    "engine": 2,
    "optim": 3,
    "integrations": 4,
    "analysis": 4,
    "compare": 4,
    "bench": 4,
    "commands": 5,
    "cli": 5,
    "__main__": 6,
}
BELOW_ALL = ("files", "public", "drawing", "scripts")
"""They know nothing of optimizers."""


def modules() -> dict[str, Path]:
    """Dotted names below the package, of packages too, and their files."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(name: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules of this package that a module imports, wherever in it, for types alone too."""
    own = name.split(".") if name else []
    package = own if path.name == "__init__.py" else own[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            bases = [(each.name.split("."), []) for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = ["hf_winopt", *package[: len(package) - node.level + 1]] if node.level else []
            bases = [([*above, *(node.module or "").split(".")], [each.name for each in node.names])]
        else:
            continue
        for base, names in bases:
            base = [part for part in base if part]
            if base[:1] != ["hf_winopt"]:
                continue
            for each in names or [""]:
                whole = ".".join([*base[1:], each]).strip(".")
                found = whole if whole in known else ".".join(base[1:])
                if found and found != name:
                    yield found


KNOWN = modules()
IMPORTS = {name: sorted(set(imported(name, path, KNOWN))) for name, path in KNOWN.items()}


def test_they_are_all_found() -> None:
    assert {name.split(".")[0] for name in KNOWN} - {""} == {*FLOORS, *BELOW_ALL}
    assert "rules.moments" in IMPORTS["rules.rule"] and "engine.work" in IMPORTS["engine.eager"]


@pytest.mark.parametrize("name", [name for name in KNOWN if name])
def test_a_module_imports_only_from_its_floor_and_those_below(name: str) -> None:
    kind = name.split(".")[0]
    for other in IMPORTS[name]:
        theirs = other.split(".")[0]
        if theirs not in BELOW_ALL and theirs != kind:
            assert kind not in BELOW_ALL, other
            # of one floor are what stands on the optimizers: they know each other, and no two each other at once
            assert FLOORS[theirs] < FLOORS[kind] or FLOORS[theirs] == FLOORS[kind] == 4, other


def test_there_is_no_circle_of_imports() -> None:
    done: set[str] = set()

    def walk(name: str, way: tuple[str, ...]) -> None:
        if name in way:
            pytest.fail(" -> ".join([*way[way.index(name) :], name]))
        if name not in done:
            for other in IMPORTS[name]:
                if other:
                    walk(other, (*way, name))
            done.add(name)

    for name in KNOWN:
        if name:
            walk(name, ())
