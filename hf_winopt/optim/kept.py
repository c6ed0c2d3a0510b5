"""Whether the tensors of a state lie where they lay when engines were made ready for them."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import Tensor

from .. import engine
from .state import HoldsState

States = Mapping[Any, Any]

_COUNTED = getattr(sys, "_is_gil_enabled", lambda: True)  # without it, references are not counted in one place


class Kept:
    """Those tensors of an optimizer's state that engines go by.

    They are asked where they lie after the state was shown to others, and then for as long as somebody holds a part of
    it: who holds none must be shown it again before anything of it can be changed.

    Args:
        states: the optimizer's, by parameter.
        names: what is kept of each parameter.
        held: tensors among them that an engine's work holds as well.
    """

    def __init__(self, states: States, names: Mapping[Tensor, Sequence[str]], held: Collection[Tensor]) -> None:
        self._names = names
        tensors = self._tensors(states)
        shards = list(map(engine.local, tensors))
        self._forms, self._addresses = engine.Forms(shards, engine.ANYWHERE), engine.addresses(shards)
        also_held = set(map(id, held))
        whole, each, tensor = _references_to_what_nobody_holds()
        self._expected = [whole, *[each] * len(names), *(tensor + (id(one) in also_held) for one in tensors)]
        self._sharded = engine.any_sharded(tensors)  # what is held of shards is not seen from outside

    def lies_as_it_lay(self, optimizer: HoldsState) -> bool:
        """Whether every tensor of the optimizer's state is where it was, and has the form that it had."""
        if not optimizer._shown:
            return True
        try:
            tensors = self._tensors(optimizer._own_state)
            shards = list(map(engine.local, tensors)) if self._sharded else tensors
            as_before = engine.addresses(shards) == self._addresses and self._forms.hold(shards, shards)
        except (KeyError, TypeError):  # something is missing, or no tensor
            return False
        unseen = _COUNTED() and not self._sharded and as_before
        optimizer._shown = not unseen or self._is_held(optimizer, tensors)
        return as_before

    def _tensors(self, states: States) -> list[Tensor]:
        return [states[param][name] for param, names in self._names.items() for name in names]

    def _is_held(self, optimizer: HoldsState, tensors: Sequence[Tensor]) -> bool:
        """Whether anybody else refers to the state, to what is kept of a parameter, or to a tensor."""
        each = [optimizer._own_state[param] for param in self._names]
        return _references(vars(optimizer), each, tensors) != self._expected


def _references(holder: Mapping[str, Any], each: Sequence[Any], tensors: Sequence[Any]) -> list[int]:
    return [sys.getrefcount(holder["state"]), *map(sys.getrefcount, each), *map(sys.getrefcount, tensors)]


def _references_to_what_nobody_holds() -> list[int]:
    """What Python counts of a state that only its optimizer refers to, asked in the same way."""
    holder = {"state": {None: {"": object()}}}
    each = [holder["state"][None]]
    tensors = [each[0][""]]
    return _references(holder, each, tensors)
