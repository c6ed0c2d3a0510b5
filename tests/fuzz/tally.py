"""How many cases each property was tried on, and what came of them."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Literal

Outcome = Literal["refused", "trained"]

CASES: defaultdict[str, Counter[Outcome]] = defaultdict(Counter)
"""Name of a property -> how many cases ended how. A case that fails is not among them: pytest reports it."""


def count(name: str, outcome: Outcome) -> None:
    CASES[name][outcome] += 1


def counted(test: Callable[..., Outcome]) -> Callable[..., None]:
    """Count the cases of a property by the outcome that it returns."""

    @functools.wraps(test)
    def case(*args: object, **kwargs: object) -> None:
        count(test.__name__, test(*args, **kwargs))

    return case


def total() -> Counter[Outcome]:
    """How many cases of all properties ended how."""
    return sum(CASES.values(), Counter())
