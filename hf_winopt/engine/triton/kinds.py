"""Which parameters are stepped together: those that one compiled kernel can walk."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping

from .batch import Entry
from .table import in_blocks

Level = tuple[str, bool]
"""Of parameters in blocks, at which level of state they are, and whether they have a trust ratio."""


def by_kind(entries: Mapping[int, Entry]) -> list[dict[int, Entry]]:
    """The entries by their places, kind by kind, in an order that all processes have in common.

    Those that are not in blocks go along with some that are, so that a model and its biases are one launch.
    """
    kinds: defaultdict[Hashable, dict[int, Entry]] = defaultdict(dict)
    for place, entry in entries.items():
        kinds[_kind(entry)][place] = entry
    return [level for kind in kinds.values() for level in _by_level(kind)]


def _kind(entry: Entry) -> Hashable:
    rule = entry.rule
    keeps_rounding = rule.remainder and rule.acceleration == "none"
    choices = (rule.transform, rule.moments, rule.acceleration, rule.decay, keeps_rounding)
    return (*choices, entry.param.dtype, entry.grad_dtype, entry.shares_sums)


def _by_level(kind: Mapping[int, Entry]) -> list[dict[int, Entry]]:
    """In groups without decay LAMB's ratio is 1. In two passes their direction would be rounded, in one it is not."""
    levels: defaultdict[Level, dict[int, Entry]] = defaultdict(dict)
    for place, entry in kind.items():
        if in_blocks(entry.rule):
            levels[entry.rule.state, entry.rule.trust_ratio][place] = entry
    adapts = any(entry.rule.trust_ratio for entry in kind.values())
    home = next((level for level in levels if level[1] == adapts), ("float32", adapts))
    levels[home] |= {place: entry for place, entry in kind.items() if not in_blocks(entry.rule)}
    return [level for level in levels.values() if level]
