"""One optimizer of several, each with parameters of its own: to schedules, checkpoints and Accelerate it is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from .outer import Outer

PART = "part"
"""The key of a parameter group that says whose it is."""


SPLIT = "split"
"""The key of a number that tells which parameters a group has, by their names; it may be missing."""


class Parts(Outer):
    """Several optimizers as one, stepped in order; the groups of all stand one behind the other.

    A parameter group says in `part` whose it is, and `add_param_group` takes a group that says so. The state dict is
    like that of any optimizer, with all groups, and the state of all parameters by their number.

    Args:
        parts: name -> optimizer; no parameter in two of them.

    Example:
        >>> optimizer = Parts({"muon": torch.optim.Muon(matrices), "adamw": hf_winopt.AdamW(others)})
    """

    _parts: Mapping[str, Optimizer] = {}
    _order: Sequence[str] = ()
    """The part of each group, in order: the next of its groups."""

    def __init__(self, parts: Mapping[str, Optimizer]) -> None:
        for name, part in parts.items():
            for group in part.param_groups:
                group[PART] = name
        super().__init__([group for part in parts.values() for group in part.param_groups], {})
        self._parts = dict(parts)
        self._order = [name for name, part in parts.items() for _ in part.param_groups]

    @property
    def parts(self) -> Mapping[str, Optimizer]:
        """Name -> optimizer."""
        return self._parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The groups of all parts, the very same."""
        groups = {name: iter(part.param_groups) for name, part in self._parts.items()}
        return [next(groups[name]) for name in self._order]

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        self._order = [group[PART] for group in groups]
        for name, part in self._parts.items():
            part.param_groups = [group for group in groups if group[PART] == name]

    @property
    def state(self) -> Any:  # type: ignore[override]
        """Parameter -> state, of all parts."""
        return _States(self._parts.values())

    @state.setter
    def state(self, state: Mapping[Tensor, Any]) -> None:
        states, kept = self.state, dict(state)
        states.clear()
        states.update(kept)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the part that it names.

        Raises:
            ValueError: it names none.
        """
        if not self._parts:  # as torch's constructor does with those that there are
            return
        name = str(param_group.get(PART))
        if name not in self._parts:
            raise ValueError(f"param_group must say whose it is: {PART} is one of {list(self._parts)}; got {name!r}")
        self._parts[name].add_param_group(param_group)
        self._order = [*self._order, name]

    @torch._disable_dynamo
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Step every part with the gradients that its parameters hold; returns what the closure returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._check()
        for part in self._parts.values():
            part.step()
        return loss

    def _check(self) -> None:
        """What a subclass asks of its parameters before a step; it leaves `step` itself alone, as torch hooks that."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As each part does."""
        for part in self._parts.values():
            part.zero_grad(set_to_none)

    # checkpoints -----------------------------------------------------------------------------------------------------

    def _saved(self) -> dict[str, Any]:
        """The state dict of all parts, with their groups in order and the parameters numbered through."""
        theirs = {name: part.state_dict() for name, part in self._parts.items()}
        groups = {name: iter(each["param_groups"]) for name, each in theirs.items()}
        found: dict[str, Any] = {"state": {}, "param_groups": []}
        numbered = 0
        for name in self._order:
            group = next(groups[name])
            numbers = range(numbered, numbered := numbered + len(group["params"]))
            state = theirs[name]["state"]
            found["state"].update({number: state[key] for number, key in zip(numbers, group["params"]) if key in state})
            found["param_groups"].append({**group, "params": list(numbers)})
        return found

    def _load(self, state_dict: dict[str, Any]) -> None:
        """One of the same parts, split in the same way; where one of them refuses its own, all stay as they were."""
        order = [group.get(PART) for group in state_dict["param_groups"]]
        if order != list(self._order):
            raise ValueError(f"state_dict must have groups of the parts {list(self._order)}; got those of {order}")
        for mine, theirs in zip(self.param_groups, state_dict["param_groups"]):
            if mine.get(SPLIT) != theirs.get(SPLIT) and None not in (mine.get(SPLIT), theirs.get(SPLIT)):
                raise ValueError(
                    f"state_dict must be of the same split; its group of {theirs[PART]} has other parameters than "
                    "here. Give the options that it was split by"
                )
        before = {name: (part.state, part.param_groups) for name, part in self._parts.items()}
        try:
            for name, part in self._parts.items():
                part.load_state_dict(_part_of(state_dict, name))
        except BaseException:
            for name, part in self._parts.items():
                part.state, part.param_groups = before[name]
            raise

    def __getstate__(self) -> dict[str, Any]:
        return {"defaults": self.defaults, "_parts": self._parts, "_order": self._order}

    def __repr__(self) -> str:
        return "\n".join(f"{name}: {part!r}" for name, part in self._parts.items())


def _part_of(state_dict: Mapping[str, Any], name: str) -> dict[str, Any]:
    groups = [group for group in state_dict["param_groups"] if group[PART] == name]
    keys = {key for group in groups for key in group["params"]}
    return {"state": {key: kept for key, kept in state_dict["state"].items() if key in keys}, "param_groups": groups}


class _States(MutableMapping[Tensor, Any]):
    """The state of several optimizers, each parameter's where it belongs."""

    def __init__(self, parts: Any) -> None:
        self._parts = list(parts)
        self._home = {id(p): part for part in self._parts for group in part.param_groups for p in group["params"]}

    def get(self, param: Tensor, default: Any = None) -> Any:  # a part makes what is asked for by its key
        part = self._home.get(id(param))
        return default if part is None else part.state.get(param, default)

    def __getitem__(self, param: Tensor) -> Any:
        return self._home[id(param)].state[param]

    def __setitem__(self, param: Tensor, state: Any) -> None:
        self._home[id(param)].state[param] = state

    def __delitem__(self, param: Tensor) -> None:
        del self._home[id(param)].state[param]

    def __iter__(self) -> Iterator[Tensor]:
        return (param for part in self._parts for param in part.state)

    def __len__(self) -> int:
        return sum(len(part.state) for part in self._parts)

    def __contains__(self, param: object) -> bool:
        return any(param in part.state for part in self._parts)
