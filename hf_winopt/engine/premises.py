"""What was made ready takes for granted, and whether it still holds. Asked at every step: long loops here run in C."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import attrgetter

from torch import Tensor

from .shards import any_sharded, local

State = Mapping[Tensor, dict[str, Tensor]]
_nbytes = attrgetter("nbytes")


def addresses(tensors: Iterable[Tensor]) -> list[int]:
    """Where each tensor's data is."""
    return list(map(Tensor.data_ptr, tensors))


def _tensors_of(state: State) -> Iterator[Tensor]:
    return chain.from_iterable(map(dict.values, state.values()))


class Premises:
    """Parameters and state lie where they lay, and gradients have the form they had.

    Args:
        params, grads: all parameters of the optimizer, and their gradients or None.
        state: the optimizer's whole state.
        expected: the places of parameters that may have a gradient at a later step though they have none now.
    """

    def __init__(
        self,
        params: Sequence[Tensor],
        grads: Sequence[Tensor | None],
        state: State,
        expected: Collection[int],
    ) -> None:
        self._params = addresses(params)
        self._sharded = any_sharded(list(_tensors_of(state)))
        self._state = self._addresses_of(state)
        # a gradient's form, for a parameter that has none yet its own; None where there shall be none
        shown = [p if g is None and i in expected else g for i, (p, g) in enumerate(zip(params, grads))]
        self._forms = [None if t is None else (t.nbytes, t.stride()) for t in shown]
        self._nbytes = [None if form is None else form[0] for form in self._forms]
        self._contiguous = all(t is None or t.is_contiguous() for t in shown)

    def hold(
        self,
        params: Sequence[Tensor],
        grads: Sequence[Tensor | None],
        live: Sequence[Tensor],
        state: State,
    ) -> bool:
        """Whether all is as it was; `live` are the gradients that there are."""
        try:
            return (
                addresses(params) == self._params
                and self._addresses_of(state) == self._state
                and (self._all_alike(live) if len(live) == len(grads) else self._some_alike(grads))
            )
        except (AttributeError, TypeError, RuntimeError):  # no tensor in the state; a gradient that is not dense
            return False

    def _addresses_of(self, state: State) -> list[int]:
        tensors = _tensors_of(state)
        return addresses(map(local, tensors) if self._sharded else tensors)

    def _all_alike(self, live: Sequence[Tensor]) -> bool:
        if not self._contiguous:
            return self._some_alike(live)
        return list(map(_nbytes, live)) == self._nbytes and all(map(Tensor.is_contiguous, live))

    def _some_alike(self, grads: Sequence[Tensor | None]) -> bool:
        return all(g is None or (g.nbytes, g.stride()) == form for g, form in zip(grads, self._forms))
