"""What a step finds: the parameters of all groups, or the shards of them that are here, and their gradients."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from itertools import chain
from operator import is_
from typing import Any, NamedTuple

from torch import Tensor

from .. import engine
from ..engine.shards import Sharing
from ..rules import Rule

Groups = Sequence[tuple[Rule, int]]
"""The rule of each parameter group, and how many parameters it has."""


class Shard(NamedTuple):
    """Of one parameter: itself or its shard, the gradient of that, and who has the rest; None if nobody."""

    z: Tensor
    g: Tensor | None
    sharing: Sharing | None


class Gathered:
    """All that is stepped, in order.

    Args:
        params: the parameters.
        zs: themselves, or the shards of them that are here.
        grads: of those; None where there is none.
        sharings: who has the rest of each; empty where all are whole.

    Attributes:
        live: the gradients that there are.
        places: the addresses of the gradients, once they were asked for; 0 where there is none.
    """

    def __init__(
        self,
        params: Sequence[Tensor],
        zs: Sequence[Tensor],
        grads: Sequence[Tensor | None],
        sharings: Sequence[Sharing | None],
    ) -> None:
        self.params, self.zs, self.grads, self.sharings = params, zs, grads, sharings
        self.live = [g for g in grads if g is not None]
        self.places: Sequence[int] = ()

    def ask_places(self, fleeting: Collection[int]) -> None:
        """Ask where the gradients are, but for those of parameters that have no addresses."""
        asked = [None if i in fleeting else g for i, g in enumerate(self.grads)] if fleeting else self.grads
        self.places = engine.places(asked)

    @cached_property
    def written(self) -> Sequence[Tensor]:
        """What has a gradient, and so is stepped."""
        return (
            self.zs if len(self.live) == len(self.grads) else [z for z, g in zip(self.zs, self.grads) if g is not None]
        )

    def live_sharings(self) -> list[Sharing | None]:
        """Who shares the gradients that there are; empty where all are whole."""
        return [sharing for g, sharing in zip(self.grads, self.sharings) if g is not None]

    def at(self, place: int) -> Shard:
        """Of the parameter at this place."""
        return Shard(self.zs[place], self.grads[place], self.sharings[place] if self.sharings else None)


class Gatherer:
    """Gathers at every step, and remembers who shares the parameters."""

    def __init__(self) -> None:
        self._params: Sequence[Tensor] = []
        self._sharings: list[Sharing | None] = []

    def __call__(self, groups: Sequence[Mapping[str, Any]]) -> Gathered:
        params = list(chain.from_iterable(group["params"] for group in groups))
        if not engine.any_sharded(params):
            return Gathered(params, params, [p.grad for p in params], ())
        if len(params) != len(self._params) or not all(map(is_, params, self._params)):
            self._params, self._sharings = params, [engine.sharing(p) for p in params]
        zs = list(map(engine.local, params))
        return Gathered(params, zs, list(map(engine.local_grad, params, zs)), self._sharings)
