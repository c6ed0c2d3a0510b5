"""Parameter groups, each with options that make a rule, and the parameters that may be in them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch.optim.optimizer import ParamsT

from ..rules import Rule
from .options import OF_TORCH, Check, check_options, plain
from .parameters import check_distinct, check_form, check_trained
from .pieces import Given
from .state import HoldsState


def options_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a parameter group among the local names at the start of a constructor."""
    return {name: value for name, value in arguments.items() if name not in ("self", "params", "backend", "__class__")}


def check_group(group: Mapping[str, Any], cls: type[Grouped]) -> None:
    """Check the options of a parameter group one by one and together.

    Raises:
        ValueError: names the option, its value and what would be right.
    """
    check_options(group, cls.checks)
    cls.rule(group)
    if group.get("agr_steps") is not None and not group.get("agr"):
        warnings.warn("agr_steps has no effect without agr=True", stacklevel=4)


class Grouped(HoldsState):
    """An optimizer with groups whose options are checked; numpy's numbers in them become Python's."""

    checks: ClassVar[Mapping[str, Check]] = {}
    """Checks of options that mean here something else than elsewhere."""

    _given: Sequence[Given] = ()
    _every_group: Sequence[dict[str, Any]] = ()  # DeepSpeed shows one of them at a time

    def __init__(self, params: ParamsT, defaults: Mapping[str, Any]) -> None:
        options = {name: plain(value) for name, value in defaults.items()}
        check_options({name: options.pop(name) for name in OF_TORCH if name in options}, {})
        super().__init__(params, options)

    @classmethod
    def rule(cls, options: Mapping[str, Any]) -> Rule:
        """The rule that a parameter group with these options follows.

        Raises:
            ValueError: options that do not go together.
        """
        raise NotImplementedError

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group as `torch.optim.Optimizer.add_param_group` does; nothing is added if an option is refused."""
        check_form(param_group)
        numbers = {name: plain(value) for name, value in param_group.items() if name != "params"}
        check_group({**self.defaults, **numbers}, type(self))
        param_group.update(numbers)
        super().add_param_group(param_group)
        try:
            check_distinct(self.param_groups[-1]["params"])
            check_trained(p for p in self.param_groups[-1]["params"] if p.requires_grad)
        except (TypeError, ValueError):
            del self.param_groups[-1]
            raise
        self._given = [*self._given, Given.of(self.param_groups[-1]["params"])]
        self._every_group = [*self._every_group, self.param_groups[-1]]

    def _make_numbers_plain(self) -> None:
        """A schedule can leave numpy's numbers in a group, and no checkpoint that holds them loads everywhere."""
        for group in self.param_groups:
            group.update({name: plain(value) for name, value in group.items() if name != "params"})
