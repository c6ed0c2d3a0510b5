"""What of an optimizer's parameters is stepped by this process: all of each, or its shard."""

from __future__ import annotations

from collections.abc import Sequence
from operator import is_
from typing import NamedTuple

from torch import Tensor

from .. import engine
from ..engine.shards import Sharing


class Shard(NamedTuple):
    """Of one parameter: itself or its shard, the gradient of that, and who has the rest; None if nobody."""

    z: Tensor
    g: Tensor | None
    sharing: Sharing | None


class Shards(NamedTuple):
    """Of all parameters, in order; `sharings` is empty where all are whole."""

    zs: Sequence[Tensor]
    grads: Sequence[Tensor | None]
    sharings: Sequence[Sharing | None]

    def at(self, place: int) -> Shard:
        """Of the parameter at this place."""
        return Shard(self.zs[place], self.grads[place], self.sharings[place] if self.sharings else None)

    def live(self) -> tuple[list[Tensor], list[Sharing | None]]:
        """The gradients that there are, and who shares them (empty where all are whole)."""
        sharings = [each for g, each in zip(self.grads, self.sharings) if g is not None]
        return [g for g in self.grads if g is not None], sharings


class Sharder:
    """Takes the shards of parameters at every step, and remembers who shares them."""

    def __init__(self) -> None:
        self._params: list[Tensor] = []
        self._sharings: list[Sharing | None] = []

    def __call__(self, params: list[Tensor]) -> Shards:
        if not engine.any_sharded(params):
            return Shards(params, [p.grad for p in params], ())
        if len(params) != len(self._params) or not all(map(is_, params, self._params)):
            self._params, self._sharings = params, [engine.sharing(p) for p in params]
        zs = list(map(engine.local, params))
        return Shards(zs, list(map(engine.local_grad, params, zs)), self._sharings)
