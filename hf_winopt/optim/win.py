"""Win around any optimizer: the base takes its own step, and the weights look ahead of it."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from .. import engine
from ..engine import around
from ..rules import Rule, around_coefficients, scale_of
from .bases import refuse_base
from .levels import rule_for
from .loaded import loaded
from .options import check_backend, one_of, plain
from .options import reckless_steps as check_reckless_steps
from .outer import Outer
from .parameters import check_memory, check_trained
from .restated import GAPS, OLDER, is_as_kept, restate, zeros
from .state import check

_CHECKS = {
    "acceleration": one_of("win", "win2"),
    "reckless_steps": check_reckless_steps,
    "state": one_of("float32", "compact"),
    "backend": check_backend,
}


class Win(Outer):
    """Win or Win2 around a base optimizer, which may be any that steps with the gradient at the weights.

    Before its step the weights `z` become the conservative sequence `x`; the base steps there with whatever decay,
    clipping or orthogonalization it has, `x' = base(x; g)`; then the weights look ahead of it again:
    `d' = (d + (r1 - 1) (x' - x)) / (1 + r1)`, `z' = x' + d'`. Of a parameter one tensor is kept beside the base's
    state, the distance `d = z - x` (two under Win2): what is written into a weight between two steps stays written.

    Around `torch.optim.Adam` and `torch.optim.SGD` without decay it is `adam_win` and `sgd_win`; around
    `torch.optim.AdamW` it differs from `adamw_win` by `O(lr^2 weight_decay)`, decoupled in place of proximal decay.

    Parameter groups, `state` and `defaults` are the base's own; so are its options, and schedules change them as ever.
    The state dict is the base's with the distances among the state of each parameter, and one of the base alone loads.

    Args:
        base: an optimizer that has not been prepared by Accelerate yet. It is stepped by this one from now on.
        acceleration: "win" or "win2".
        reckless_steps: `(r1, r2)`, the reckless steps in units of the base's; Win uses r1, Win2 both.
        state: "float32", 4 bytes a parameter and distance, or "compact", about 1, as codes of one byte with a scale for
            128 of them; of small parameters, and those of one dimension, float32 always (docs/state.md). With codes a
            step holds 4 bytes more for as long as the base's takes.
        backend: "auto", "eager", "compile" or "triton": what steps the two passes, as in the other optimizers.

    Raises:
        TypeError: `base` is no optimizer; a parameter that is not float32, bfloat16, float16 or float64.
        ValueError: a bad option; a base that needs the gradient at a point of its own (LBFGS, SAM, schedule-free), that
            is ours (ours have `acceleration`), or that Accelerate has prepared.

    Example:
        >>> optimizer = Win(torch.optim.Muon(matrices, lr=1e-3, adjust_lr_fn="match_rms_adamw"))

    Source: Win (ICLR 2023), "a general manner" of acceleration; docs/math.md, section 3b.
    """

    _base: Optimizer | None = None
    _told = False

    def __init__(
        self,
        base: Optimizer,
        acceleration: str = "win",
        reckless_steps: tuple[float, float] = (2, 8),
        *,
        state: str = "float32",
        backend: str = "auto",
    ) -> None:
        options = {
            "acceleration": acceleration,
            "reckless_steps": plain(reckless_steps),
            "state": state,
            "backend": backend,
        }
        for name, value in options.items():
            _CHECKS[name](name, value)
        if isinstance(base, Win):
            raise ValueError("base must not be a Win itself: the weights would look ahead of what looks ahead")
        refuse_base(base)
        check_trained(p for group in base.param_groups for p in group["params"] if p.requires_grad)
        super().__init__(base.param_groups, {})  # what torch hangs on to every optimizer: hooks, profiling
        self._base = base
        self.options = options

    # what is the base's ----------------------------------------------------------------------------------------------

    @property
    def base(self) -> Optimizer:
        """The optimizer that this one is around."""
        assert self._base is not None
        return self._base

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The base's parameter groups, the very same."""
        return [] if self._base is None else self._base.param_groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        if self._base is not None:
            self._base.param_groups = groups

    @property
    def state(self) -> defaultdict[Tensor, Any]:  # type: ignore[override]
        """Parameter -> the base's state, and the distances."""
        return defaultdict(dict) if self._base is None else self._base.state

    @state.setter
    def state(self, state: defaultdict[Tensor, Any]) -> None:
        if self._base is not None:
            self._base.state = state

    @property
    def defaults(self) -> dict[str, Any]:  # type: ignore[override]
        """The base's defaults."""
        return {} if self._base is None else self._base.defaults

    @defaults.setter
    def defaults(self, defaults: dict[str, Any]) -> None:
        if self._base is not None:
            self._base.defaults = defaults

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, as the base does."""
        if self._base is None:  # as torch's constructor does with those that the base has
            return
        self._base.add_param_group(param_group)
        try:
            check_trained(p for p in self._base.param_groups[-1]["params"] if p.requires_grad)
        except (TypeError, ValueError):
            del self._base.param_groups[-1]
            raise

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As the base does."""
        self.base.zero_grad(set_to_none)

    # stepping --------------------------------------------------------------------------------------------------------

    @torch._disable_dynamo
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step with the gradients that the parameters hold; those without one are left alone.

        Should the base's step fail, the parameters are where they are after a step in which it did nothing more.

        Args:
            closure: computes the loss again, at the weights, and returns it (gradients enabled); optional.

        Returns:
            What the closure returned, else None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        distances = self._distances()
        works: defaultdict[Rule, list[engine.Work]] = defaultdict(list)
        for param, (rule, state) in distances.items():
            works[rule].append(self._work(param, rule, state))
        left: list[tuple[Rule, list[engine.Work]]] = []
        stepped = False
        try:
            for rule, mine in works.items():
                around.before(rule, mine)
                left.append((rule, mine))
            self.base.step()
            stepped = True
        finally:
            for rule, mine in left:
                around.after(rule, mine)
            # not sooner, nor where a base has left out its first step: bases begin their state where there is none
            for param, (_, state) in distances.items():
                if self.state.get(param) or (stepped and _is_any(state)):
                    self.state[param].update(state)
        return loss

    def _rule(self, param: Tensor) -> Rule:
        asked = Rule(
            moments="base",
            acceleration=self.options["acceleration"],
            decay="l2",
            state=self.options["state"],
            remainder=True,
        )
        return rule_for(asked, param)

    def _distances(self) -> dict[Tensor, tuple[Rule, dict[str, Any]]]:
        """Of every parameter with a gradient how its distances are stored, and those; what is missing is 0."""
        found = {}
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is None:
                    continue
                check_trained([param])
                z, rule, kept = engine.local(param), self._rule(param), self.state.get(param, {})
                check_memory(z, None)
                state = {name: kept[name] for name in _NAMES if name in kept}
                check(state, param, rule)
                if not is_as_kept(state, z, rule):
                    restate(state, param, rule)
                    for name in _NAMES:
                        kept.pop(name, None)
                for name, encoding in rule.encodings.items():
                    if name not in state:
                        state.update(zeros(name, param, encoding))
                    state[name] = _laid_out(param, z, state[name])
                found[param] = rule, state
        return found

    def _work(self, param: Tensor, rule: Rule, state: Mapping[str, Tensor]) -> engine.Work:
        z = engine.local(param)
        name, why = engine.choose(self.options["backend"], z, z, engine.has_no_address(z))
        if why is not None and not self._told:
            self._told = True
            warnings.warn(f"Win's own passes go by the slower eager engine: {why}", stacklevel=5)
        c = around_coefficients(rule, tuple(self.options["reckless_steps"]))
        local = {name: engine.local(state[name]) for name in rule.kept}
        return around.with_room(rule, z, local, c, name)

    # checkpoints -----------------------------------------------------------------------------------------------------

    def _saved(self) -> dict[str, Any]:
        """The base's state dict, with the distances among the state of each parameter."""
        state_dict = self.base.state_dict()
        for group in state_dict["param_groups"]:  # a schedule can leave numpy's numbers, which not every reader takes
            group.update({name: plain(value) for name, value in group.items() if name != "params"})
        return state_dict

    def _load(self, state_dict: dict[str, Any]) -> None:
        """One of this optimizer, or of the base alone; what it lacks of distances starts at 0."""
        fitted: dict[tuple[int, int], dict[str, Tensor]] = {}
        for i, (mine, theirs) in enumerate(zip(self.param_groups, state_dict["param_groups"])):
            for j, (param, key) in enumerate(zip(mine["params"], theirs["params"])):
                fitted[i, j] = self._fitted(param, state_dict["state"].get(key, {}), key)
        of_base = {key: _without_ours(state) for key, state in state_dict["state"].items()}
        self.base.load_state_dict({**state_dict, "state": of_base})
        for i, group in enumerate(self.param_groups):
            for j, param in enumerate(group["params"]):
                if fitted.get((i, j)):
                    self.state[param].update(fitted[i, j])

    def _fitted(self, param: Tensor, state: Mapping[str, Any], key: object) -> dict[str, Tensor]:
        """The distances of a parameter in a state dict, checked, on its device."""
        rule, found = self._rule(param), {}
        state = {name: _codes_again(state, name) for name in state}  # torch's bases cast all that they load
        for name in (*GAPS, *OLDER):
            if state.get(name) is not None:
                found.update(loaded(param, state, name, key, rule))
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {"_base": self._base, "options": self.options}

    def __repr__(self) -> str:
        form = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"Win({self._base!r}, {form})"


_NAMES = (*GAPS, *OLDER, *map(scale_of, GAPS))
"""What is kept of a parameter beside the base's state, at any level."""


def _is_any(state: Mapping[str, Tensor]) -> bool:
    """Whether there is any distance; asked of a parameter whose base keeps nothing of it."""
    return any(bool(engine.local(tensor).any()) for tensor in state.values())


def _laid_out(param: Tensor, z: Tensor, tensor: Tensor) -> Tensor:
    """A distance laid out as its parameter is: both are walked in one order."""
    here = engine.local(tensor)
    if here.stride() == z.stride():
        return tensor
    return engine.like(param, torch.empty_like(z, dtype=here.dtype, memory_format=torch.preserve_format).copy_(here))


def _codes_again(state: Mapping[str, Any], name: str) -> Any:
    value = state[name]
    coded = name in GAPS and state.get(scale_of(name)) is not None
    return value.to(torch.int8) if coded and isinstance(value, Tensor) and value.is_floating_point() else value


def _without_ours(state: Any) -> Any:
    return {name: value for name, value in state.items() if name not in _NAMES} if isinstance(state, dict) else state
