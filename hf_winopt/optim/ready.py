"""What a step finds ready: made at the first, it serves for as long as all is as it was then."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from operator import is_
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from .. import engine
from ..rules import Rule, agr_suits
from .gathered import Gathered, Groups, Shard
from .kept import Kept
from .state import HoldsState

if TYPE_CHECKING:
    from ..engine.triton.plan import Plan


class Asks(NamedTuple):
    """What is asked for: the groups' rules, whether any wants the norm of all gradients, and the backend."""

    groups: Groups
    needs_norm: bool
    backend: str


def work_of(
    param: Tensor,
    shard: Shard,
    state: Mapping[str, Any],
    rule: Rule,
    engine_name: str = "eager",
    remembered: bool = False,
) -> engine.Work:
    """A parameter, or the shard of it that is here, with its state, all of which is there; without a gradient yet.

    Args:
        engine_name: what steps it.
        remembered: whether it serves for more than one step, and views of its tensors with it.
    """
    tensors = {name: engine.local(state[name]) for name in rule.kept}
    apart = [tensor.detach() for tensor in (shard.z, *tensors.values())]  # a view of the state itself would hold it
    return engine.Work(
        shard.z,
        tensors,
        step=state["step"],
        sharing=shard.sharing,
        suits_agr=agr_suits(param),
        engine=engine_name,
        ready=engine.in_place(rule, apart) if remembered else None,
    )


class Ready:
    """What the steps of an optimizer go by.

    Every address that is handed to compiled code was checked when this was made, for type, shape, layout, device and
    extent, and is asked again before each step whether it is still the same.

    Args:
        asks: what it was made for.
        gathered: the parameters, and the gradients of the step that it was made at.
        rules: of each parameter.
        kept: the state of those that are remembered.
        plan: what the Triton engine steps; None where that is nothing.
        works: the others, by their place among all parameters; without a gradient yet.
        others: engines of those whose state is yet to be started, or that are `fleeting`.
        fleeting: places of those of whose elements an address says nothing: they are not remembered.
    """

    def __init__(
        self,
        asks: Asks,
        gathered: Gathered,
        rules: Sequence[Rule],
        kept: Kept,
        plan: Plan | None,
        works: Mapping[int, engine.Work],
        others: Mapping[int, str],
        fleeting: Collection[int],
    ) -> None:
        self.asks, self.rules, self.plan, self.works, self.others = asks, rules, plan, works, others
        self.fleeting = fleeting
        self.by_plan = plan.stepped if plan is not None else frozenset()
        self._kept, self._params = kept, gathered.params
        gathered.ask_places(fleeting)
        zs = self._remembered(gathered.zs)
        self._forms, self._addresses = engine.Forms(zs, engine.AT_A_KNOWN_PLACE), engine.addresses(zs)
        # of a parameter without a gradient, one of its own form is expected; where nothing was made ready, none at all
        self._grads = engine.Forms(
            [
                z if g is None and (i in works or i in self.by_plan) else g
                for i, (z, g) in enumerate(zip(gathered.zs, gathered.grads))
            ],
            engine.ANYWHERE,
        )

    def holds(self, asks: Asks, gathered: Gathered, optimizer: HoldsState) -> bool:
        """Whether all is as it was, for the gradients of another step."""
        zs = self._remembered(gathered.zs)
        try:
            return (
                asks == self.asks
                and len(gathered.params) == len(self._params)
                and all(map(is_, gathered.params, self._params))
                and engine.addresses(zs) == self._addresses
                and self._forms.hold(zs, zs)
                and self._grads.hold(gathered.grads, gathered.live)
                and self._have_addresses(gathered)
                and self._kept.lies_as_it_lay(optimizer)
            )
        except (AttributeError, TypeError, RuntimeError, ValueError):  # a gradient that is not dense, a lazy parameter
            return False

    @property
    def lasts(self) -> bool:
        """Whether the next step can go by it: no state is started in this one."""
        return self.others.keys() <= set(self.fleeting)

    def has_rest(self, gathered: Gathered) -> bool:
        """Whether there is a gradient of a parameter that the Triton engine does not step."""
        if len(self.by_plan) == len(gathered.params):
            return False
        return any(g is not None and i not in self.by_plan for i, g in enumerate(gathered.grads))

    def launch_finds_norm(self, gathered: Gathered) -> bool:
        """Whether the launch can find the norm of all gradients: it has them all, each whole, on one device."""
        if self.plan is None or not self.plan.finds_norm or any(gathered.sharings):
            return False
        return not self.has_rest(gathered)

    def _remembered(self, zs: Sequence[Tensor]) -> Sequence[Tensor]:
        if not self.fleeting:
            return zs
        return [z for i, z in enumerate(zs) if i not in self.fleeting]

    def _have_addresses(self, gathered: Gathered) -> bool:
        """Whether every gradient has one, of what is remembered."""
        gathered.ask_places(self.fleeting)
        if 0 not in gathered.places:
            return True
        asked = zip(gathered.places, gathered.grads)
        return all(at or g is None or i in self.fleeting for i, (at, g) in enumerate(asked))
