"""What a step finds ready: made at the first, it serves for as long as parameters and state lie where they lay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from .. import engine
from ..rules import Coefficients, Rule
from .shards import Shard

if TYPE_CHECKING:
    from ..engine.premises import Premises
    from ..engine.shards import Sharing
    from ..engine.triton.plan import Plan


Groups = Sequence[tuple[Rule, int]]
"""The rule of each parameter group, and how many parameters it has."""


class Held(NamedTuple):
    """A parameter, or the shard of it that is here, that an engine steps by itself.

    Args:
        z: the parameter.
        step: its step count.
        state: the tensors of its rule, in order.
        sharing: who has the rest; None if nobody.
        lines: `z` and state as one-dimensional views; None where they do not lie so.
        suits_agr: whether AGR is for the whole parameter.
    """

    z: Tensor
    step: Tensor
    state: dict[str, Tensor]
    sharing: Sharing | None
    lines: list[Tensor] | None
    suits_agr: bool

    @classmethod
    def of(cls, shard: Shard, state: Mapping[str, Tensor], rule: Rule, suits_agr: bool) -> Held:
        """What is stepped here of a parameter, with its state, all of which is there.

        Raises:
            ValueError: state that is not as the parameter's; compiled code would read beyond its end.
        """
        tensors = {name: engine.local(state[name]) for name in rule.state_names}
        right = (shard.z.shape, engine.compute_dtype(shard.z.dtype), shard.z.device)
        for name, tensor in tensors.items():
            if (tensor.shape, tensor.dtype, tensor.device) != right:
                raise ValueError(
                    f"state {name!r} of a parameter must be of shape {tuple(right[0])} and {right[1]}, on {right[2]}; "
                    f"got shape {tuple(tensor.shape)} and {tensor.dtype}, on {tensor.device}"
                )
        lines = engine.lines([shard.z, *tensors.values()])
        return cls(shard.z, state["step"], tensors, shard.sharing, lines, suits_agr)

    def work(self, g: Tensor, c: Coefficients) -> engine.Work:
        """What there is to do with this gradient and these coefficients."""
        return engine.Work(self.z, g, self.state, c, self.sharing, self.lines)


class Ready(NamedTuple):
    """What the steps of an optimizer find ready.

    Args:
        asks: what its groups ask for, and whether they ask for the norm of all gradients.
        premises: what else is taken for granted.
        plan: what the Triton engine steps; None where that is nothing.
        held: the others, by their place among all parameters.
    """

    asks: tuple[Groups, bool]
    premises: Premises
    plan: Plan | None
    held: Mapping[int, Held]
