"""What all optimizers here share: the walk of a step, from the groups to the engines, and checkpoints."""

from __future__ import annotations

import itertools
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from .. import engine
from ..rules import OFF, Coefficient, Coefficients, Rule, coefficients
from . import checkpoint, pieces
from .amp import StepsUnderAMP
from .capture import refuse_capture
from .cost import KnowsCost, agr_is_off
from .gathered import Gathered, Gatherer, Shard
from .options import check_backend
from .parameters import refuse_sparse
from .prepare import prepare
from .ready import Asks, Ready, work_of
from .state import start

if TYPE_CHECKING:
    from ..engine.triton.plan import Plan

_BEHIND_TORCHS_WRAPPERS = 7


class RuleOptimizer(StepsUnderAMP, KnowsCost):
    """An optimizer whose update is a `Rule`; a subclass says which, from the options of a parameter group.

    State and arithmetic are float32 whatever the type of a parameter (float64 for float64 parameters).
    """

    has_some_only: str | None = None
    """Why this optimizer has only some of the parameters that are trained, each of them whole; None if it has all."""

    overruled: Mapping[str, tuple[Any, Any]] = {}
    """Options that were given, and which a state dict has replaced: what was given, and what it is now.

    Not those that schedules change at every step, but the learning rate that a schedule starts from (`initial_lr`).
    """

    _ready: Ready | None = None
    _captured: Sequence[Plan] = ()
    _told = False
    _told_of_pieces = False

    def __init__(self, params: ParamsT, defaults: dict[str, Any], backend: str) -> None:
        check_backend("backend", backend)
        self.backend = backend
        self._gather = Gatherer()
        super().__init__(params, defaults)

    # stepping ------------------------------------------------------------------------------------------------------

    @torch._disable_dynamo  # a compiled training step is cut here, once, as with torch's fused optimizers
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step with the gradients that the parameters hold.

        Args:
            closure: computes the loss again and returns it (gradients enabled); optional.

        Returns:
            What the closure returned, else None.

        Raises:
            ValueError: a sparse gradient, or one that does not fit its parameter; nothing has been stepped then.
            TypeError: a parameter whose type cannot be trained has a gradient; nothing has been stepped then.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        gathered = self._gather(self.param_groups)
        ready = self._prepared(gathered)
        grad_scale, self._found_inf = self._scaling()
        self.grad_norm = self._norm_before_launch(ready, gathered, grad_scale)
        self._leave_out_unless_borne()
        self._launch(ready, gathered, grad_scale)
        self._step_rest(ready, gathered, grad_scale)
        self._keep(ready)
        return loss

    def _prepared(self, gathered: Gathered) -> Ready:
        """What this step goes by: what the last one left, if all is as it was, else made anew.

        It is not left for the next step before this one is over: should it fail, nobody knows how far it came.
        """
        groups = [(self.rule(group), len(group["params"])) for group in self.param_groups]
        asks = Asks(groups, self._needs_norm(), self.backend)
        ready, self._ready = self._ready, None
        if ready is None or not ready.holds(asks, gathered, self):
            refuse_sparse(gathered.grads, type(self).__name__)
            self._refuse_pieces()
            self._tell_of_pieces()
            before = "take a step outside of it first, as in torch.cuda.graph's warm-up, and again after a capture"
            refuse_capture(gathered.zs, self.backend, before)
            with torch.inference_mode(False):  # what is made in that mode could not be written to outside of it
                ready = prepare(self, gathered, asks, self._tell_once)
        if ready.has_rest(gathered):
            refuse_capture(gathered.zs, self.backend, "not every parameter is stepped by the Triton engine")
        if self._skips() and self._skipped is None:
            before = "take a step outside of it first, for skip_nonfinite to count on from"
            refuse_capture(gathered.zs, self.backend, before)
        return ready

    def _tell_of_pieces(self) -> None:
        """Warn once that flat pieces are kept in float32, whatever level of state is asked for."""
        asked = {group.get("state", "float32") for group in self._every_group} - {"float32"}
        if not asked or self._told_of_pieces:
            return
        if pieces.are_pieces([group["params"] for group in self._every_group], self._given):
            self._told_of_pieces = True
            warnings.warn(pieces.kept_whole(asked), stacklevel=_BEHIND_TORCHS_WRAPPERS)

    def _refuse_pieces(self) -> None:
        rules = [rule for rule in map(self.rule, self._every_group) if rule.takes_sums]
        of_all = ("max_grad_norm", "skip_nonfinite")
        norms = [option for option in of_all if any(group.get(option) for group in self._every_group)]
        if not rules and not norms:
            return
        if self.has_some_only is not None:
            pieces.refuse(type(self).__name__, self.has_some_only, (), norms)
        if pieces.are_pieces([group["params"] for group in self._every_group], self._given):
            pieces.refuse(type(self).__name__, "was given flat pieces, as DeepSpeed and FSDP1 make them", rules, norms)

    def _tell_once(self, reason: str) -> None:
        """Warn that the optimizer does not take the engine that was asked for; the first reason stands for all."""
        if not self._told:
            self._told = True
            warnings.warn(f"stepped by the slower eager engine: {reason}", stacklevel=_BEHIND_TORCHS_WRAPPERS + 2)

    def _norm_before_launch(self, ready: Ready, gathered: Gathered, grad_scale: Tensor | None) -> Tensor | None:
        """The norm of all gradients; None where it is not needed, or the launch finds it."""
        return None if ready.launch_finds_norm(gathered) else self._norm_of(gathered, grad_scale)

    def _launch(self, ready: Ready, gathered: Gathered, grad_scale: Tensor | None) -> None:
        """Step what the Triton engine steps."""
        if ready.plan is None:
            return
        finds_norm = self._needs_norm() and self.grad_norm is None
        found = ready.plan.step(
            self.param_groups,
            gathered.places,
            grad_scale,
            self._found_inf,
            norm=self.grad_norm,
            finds_norm=finds_norm,
            bears=self._largest_norm() if finds_norm and self._skips() else None,
        )
        if finds_norm:
            self.grad_norm = found
            self._leave_out_unless_borne()
        torch.autograd.graph.increment_version(gathered.written)  # autograd cannot see what a kernel writes

    def _step_rest(self, ready: Ready, gathered: Gathered, grad_scale: Tensor | None) -> None:
        """Step the others, by works, each counted one step on, with the numbers of its step."""
        if not ready.has_rest(gathered) or self.step_was_skipped:
            return
        works: defaultdict[Rule, list[engine.Work]] = defaultdict(list)
        place = itertools.count()
        for group in self.param_groups:
            mine = [(i, p) for p, i in zip(group["params"], place) if i not in ready.by_plan]
            held = [
                (ready.rules[i], ready.works.get(i) or self._started(p, gathered.at(i), ready, i), g)
                for i, p in mine
                if (g := gathered.grads[i]) is not None
            ]
            for rule, work in self._given_to(group, held, self._grad_factor(group, grad_scale)):
                works[rule].append(work)
        engine.step(works)

    def _started(self, param: Tensor, shard: Shard, ready: Ready, place: int) -> engine.Work:
        """A parameter that is not remembered, with what is missing of its state."""
        state, rule = self._own_state[param], ready.rules[place]
        start(state, param, rule)
        return work_of(param, shard, state, rule, ready.others[place])

    def _given_to(
        self, group: dict[str, Any], held: Sequence[tuple[Rule, engine.Work, Tensor]], grad: Coefficient
    ) -> list[tuple[Rule, engine.Work]]:
        """The works of a group with their gradients and coefficients; `grad` is what section 0 multiplies by."""
        self._count(group, [work for _, work, _ in held])
        numbers: dict[tuple[Rule, int, bool], Coefficients] = {}
        given = []
        for rule, work, g in held:
            t = int(work.step.item())
            off = agr_is_off(rule, group, work.suits_agr, t)
            if (rule, t, off) not in numbers:
                numbers[rule, t, off] = {**coefficients(rule, group, t, grad), **({"abs_sum": OFF} if off else {})}
            given.append((rule, work.given(g, numbers[rule, t, off])))
        return given

    def _count(self, group: dict[str, Any], works: Sequence[engine.Work]) -> None:
        if works:
            # a number would be made a tensor for every parameter anew, which takes four times as long
            torch._foreach_add_([work.step for work in works], torch.tensor(1.0, device="cpu"), alpha=1.0)

    def _keep(self, ready: Ready) -> None:
        """Leave what this step went by for the next one; a graph that replays it goes on reading its plan's tables."""
        if ready.plan is not None and ready.plan.capturing():
            self._captured = [*self._captured, ready.plan]
        elif ready.lasts:
            self._ready = ready

    # checkpoints ---------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The state dict, as torch's; its numbers are Python's, so that it loads with `weights_only=True`."""
        self._make_numbers_plain()
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state dict of this optimizer, or of torch's optimizer of the same family.

        Numbers (lr, betas, weight decay ...) come from the state dict, as in torch. The form of the rule
        (`acceleration`, `decay`, `agr`) stays as constructed, and so a run can switch: state that the rule needs and
        the dict lacks is started as at step 1. State keeps the optimizer's own type (float32 for bf16 parameters) and
        goes to the parameter's device; Win's sequences `x` and `y` of version 0.1 become distances from the weights at
        the first step, so that the model may be loaded later. What others keep of a parameter stays.

        Raises:
            ValueError: not a state dict, or another optimizer's; groups or tensors that do not fit the parameters,
                state that is not finite. The optimizer is then as it was.
        """
        if not isinstance(state_dict, dict):
            raise ValueError(f"state_dict must be a dict, as state_dict() returns it; got {state_dict!r}")

        def take(_: torch.optim.Optimizer, incoming: dict[str, Any]) -> dict[str, Any]:
            with torch.inference_mode(False):  # else no step could write to the state outside of that mode
                groups, self._incoming = checkpoint.fitted(self, incoming)
            self.overruled = checkpoint.overruled(self.param_groups, groups)
            return {**incoming, "param_groups": groups, "state": {}}

        # Registered last, so that it sees the dict as the user's own hooks leave it. The state goes round torch's own
        # loading, which casts it to the parameter's type and would cut float32 to bf16.
        handle = self.register_load_state_dict_pre_hook(take)
        try:
            super().load_state_dict(state_dict)
        finally:
            handle.remove()
            self.__dict__.pop("_incoming", None)

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "_incoming" in self.__dict__:
            state = {**state, "state": defaultdict(dict, self._incoming)}
        super().__setstate__(state)
        self.defaults.pop("differentiable", None)  # torch puts it there
        self._ready = None
        self._shown = True
        self._every_group = list(self.param_groups)
        if len(self._given) != len(self._every_group):  # made from a pickle, which holds what it was given
            self._given = [pieces.Given.of(group["params"]) for group in self._every_group]
        self._gather = Gatherer()

    def __getstate__(self) -> dict[str, Any]:
        own = ("backend", "has_some_only", "grad_norm", "_skipped", "_found_inf")
        return {**super().__getstate__(), **{name: getattr(self, name) for name in own}}
