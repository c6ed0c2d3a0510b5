"""What all optimizers here share: groups, state, the closure, and a step that hands every parameter to an engine."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from .. import engine
from ..engine.norms import grad_norm
from ..engine.premises import Premises
from ..rules import OFF, Coefficients, Rule, agr_suits, coefficients
from . import checkpoint, fused, pieces
from .amp import StepsUnderAMP
from .cost import KnowsCost, agr_is_off
from .options import Check, check_backend
from .parameters import check_form, check_parameters, refuse_sparse
from .ready import Groups, Held, Ready
from .shards import Shard, Sharder, Shards

if TYPE_CHECKING:
    from ..engine.shards import Sharing
    from ..engine.triton.plan import Plan

HOST = torch.device("cpu")


def options_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a parameter group among the local names at the start of a constructor."""
    return {name: value for name, value in arguments.items() if name not in ("self", "params", "backend", "__class__")}


class RuleOptimizer(StepsUnderAMP, KnowsCost, torch.optim.Optimizer):
    """An optimizer whose update is a `Rule`; a subclass says which, from the options of a parameter group.

    State and arithmetic are float32 whatever the type of a parameter (float64 for float64 parameters).
    """

    checks: ClassVar[Mapping[str, Check]] = {}
    """Checks of options that mean here something else than elsewhere."""

    has_some_only: str | None = None
    """Why this optimizer has only some of the parameters that are trained, each of them whole; None if it has all."""

    _given: set[int] | None = None
    _every_group: Sequence[dict[str, Any]] = ()  # DeepSpeed shows one of them at a time
    _ready: Ready | None = None
    _captured: Sequence[Plan] = ()

    def __init__(self, params: ParamsT, defaults: dict[str, Any], backend: str) -> None:
        check_backend("backend", backend)
        self.backend = backend
        self._sharder = Sharder()
        super().__init__(params, defaults)

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
        checkpoint.check_group({**self.defaults, **param_group}, type(self))
        super().add_param_group(param_group)
        try:
            check_parameters(self.param_groups[-1]["params"])
        except (TypeError, ValueError):
            del self.param_groups[-1]
            raise
        self._given = {*(self._given or ()), *map(id, self.param_groups[-1]["params"])}
        self._every_group = [*self._every_group, self.param_groups[-1]]

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
            ValueError: a sparse gradient; nothing has been stepped then.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = [(self.rule(group), len(group["params"])) for group in self.param_groups]
        params = list(itertools.chain.from_iterable(group["params"] for group in self.param_groups))
        shards = self._sharder(params)
        grads, (live, sharings) = shards.grads, shards.live()
        ready, self._ready = self._ready, None  # should the step fail, nobody knows how far it came
        asks = (groups, self._needs_norm())
        if ready is None or ready.asks != asks or not ready.premises.hold(shards.zs, grads, live, self.state):
            ready = self._made_ready(params, shards, *asks)
        stepped = ready.plan.stepped if ready.plan is not None else frozenset()
        rest = {}
        if len(stepped) < len(params):
            rest = {i: g for i, g in enumerate(grads) if g is not None and i not in stepped}
        if rest:
            fused.refuse_capture(self, shards.zs, "not every parameter is stepped by the Triton engine")
        if self._skips() and self._skipped is None:
            fused.refuse_capture(
                self, shards.zs, "take a step outside of it first, for skip_nonfinite to count on from"
            )
        grad_scale, self._found_inf = self._scaling()
        plan_finds_norm = not rest and not sharings and ready.plan is not None and ready.plan.finds_norm
        self.grad_norm = None if plan_finds_norm else self._norm_of_all(shards.zs, live, sharings, grad_scale)
        self._leave_out_unless_finite()
        if ready.plan is not None:
            self._step_fused(ready.plan, grads, grad_scale)
            written = shards.zs if len(live) == len(grads) else [z for z, g in zip(shards.zs, grads) if g is not None]
            torch.autograd.graph.increment_version(written)  # autograd cannot see what a kernel writes
        if rest and not self.step_was_skipped:
            self._step_by_works(ready.held, rest, shards, grad_scale)
        if ready.plan is not None and ready.plan.capturing():  # a graph that replays the step reads its plan's tables
            self._captured = [*self._captured, ready.plan]
        elif rest.keys() <= ready.held.keys():  # otherwise state was started, and the next step finds more
            self._ready = ready
        return loss

    def _made_ready(self, params: Sequence[Tensor], shards: Shards, groups: Groups, needs_norm: bool) -> Ready:
        """What the next steps find ready; refuses what no engine can step."""
        refuse_sparse(shards.grads, type(self).__name__)
        self._refuse_pieces()
        fused.refuse_capture(
            self,
            shards.zs,
            "take a step outside of it first, as in torch.cuda.graph's warm-up, and again after a capture",
        )
        rules = [rule for rule, length in groups for _ in range(length)]
        plan = fused.plan(self, params, shards, groups, self._started)
        stepped = plan.stepped if plan is not None else frozenset()
        held = {
            i: self._held(p, rules[i], shards.at(i))
            for i, p in enumerate(params)
            if i not in stepped and {"step", *rules[i].state_names} <= self.state.get(p, {}).keys()
        }
        known = {*held, *stepped}
        return Ready((groups, needs_norm), Premises(shards.zs, shards.grads, self.state, known), plan, held)

    def _refuse_pieces(self) -> None:
        rules = [rule for rule in map(self.rule, self._every_group) if rule.takes_sums]
        of_all = ("max_grad_norm", "skip_nonfinite")
        norms = [option for option in of_all if any(group.get(option) for group in self._every_group)]
        if not rules and not norms:
            return
        if self.has_some_only is not None:
            pieces.refuse(type(self).__name__, self.has_some_only, (), norms)
        if any(pieces.are_pieces(group["params"], self._given or ()) for group in self.param_groups):
            pieces.refuse(type(self).__name__, "was given flat pieces, as DeepSpeed and FSDP1 make them", rules, norms)

    def _norm_of_all(
        self,
        zs: Sequence[Tensor],
        grads: Sequence[Tensor],
        sharings: Sequence[Sharing | None],
        grad_scale: Tensor | None,
    ) -> Tensor | None:
        """The norm of all gradients, unscaled; None where it is not needed."""
        if not self._needs_norm():
            return None
        norm = grad_norm(grads, sharings, zs[0].device if zs else HOST)
        return norm if grad_scale is None else norm / grad_scale.to(norm)

    def _step_fused(self, plan: Plan, grads: Sequence[Tensor | None], grad_scale: Tensor | None) -> None:
        scaling = (grad_scale, self._found_inf)
        if self._needs_norm() and self.grad_norm is None:
            self.grad_norm = plan.step(self.param_groups, grads, *scaling, finds_norm=True, skips=self._skips())
            self._leave_out_unless_finite()
        else:
            plan.step(self.param_groups, grads, *scaling, norm=self.grad_norm)

    def _step_by_works(
        self, held: Mapping[int, Held], grads: Mapping[int, Tensor], shards: Shards, grad_scale: Tensor | None
    ) -> None:
        """Step the parameters that have these gradients, by their places among all, and start what state is missing."""
        works: defaultdict[Rule, list[engine.Work]] = defaultdict(list)
        place = itertools.count()
        for group in self.param_groups:
            rule = self.rule(group)
            mine = [
                (held.get(i) or self._held(p, rule, shards.at(i)), grads[i])
                for p, i in zip(group["params"], place)
                if i in grads
            ]
            works[rule] += self._works(rule, group, mine, self._grad_factor(group, grad_scale))
        engine.step(self.backend, works)

    def _works(
        self, rule: Rule, group: dict[str, Any], mine: Sequence[tuple[Held, Tensor]], grad: float
    ) -> list[engine.Work]:
        """Parameters of one group with their gradients, counted one step on, each with the numbers of its step.

        `grad` is what section 0 multiplies the gradients by.
        """
        self._count(group, [each for each, _ in mine])
        numbers: dict[tuple[int, bool], Coefficients] = {}
        works = []
        for each, g in mine:
            t = int(each.step.item())
            off = agr_is_off(rule, group, each.suits_agr, t)
            if (t, off) not in numbers:
                numbers[t, off] = {**coefficients(rule, group, t, grad), **({"abs_sum": OFF} if off else {})}
            works.append(each.work(g, numbers[t, off]))
        return works

    def _count(self, group: dict[str, Any], held: Sequence[Held]) -> None:
        if held:
            # a number would be made a tensor for every parameter anew, which takes four times as long
            torch._foreach_add_([each.step for each in held], torch.ones(()), alpha=1.0)

    def _held(self, param: Tensor, rule: Rule, shard: Shard) -> Held:
        return Held.of(shard, self._started(param, rule), rule, agr_suits(param))

    def _started(self, param: Tensor, rule: Rule, counted_on: torch.device = HOST) -> dict[str, Tensor]:
        """The parameter's state; what is missing of it is started as at step 1, with the step count on that device."""
        state = self.state[param]
        if "step" not in state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=counted_on)
        else:
            state["step"] = torch.as_tensor(state["step"]).to(counted_on, torch.float32)
        for name in {"x", "y"}.intersection(state).difference(rule.state_names):
            del state[name]  # left behind when `acceleration` was switched: it would be stale when switched back
        z, dtype = engine.local(param), engine.compute_dtype(param.dtype)
        for name in rule.state_names:
            if name not in state:
                zeros = torch.zeros_like(z, dtype=dtype, memory_format=torch.preserve_format)
                # x and y start at z. The copy keeps the layout of the parameter: they then share one flat order
                state[name] = engine.like(param, zeros.copy_(z) if name in ("x", "y") else zeros)
        return state

    def _grad_factor(self, group: dict[str, Any], grad_scale: Tensor | None) -> float:
        """What section 0 multiplies the gradient by."""
        factor = -1.0 if group["maximize"] else 1.0
        if grad_scale is not None:
            factor /= grad_scale.item()
        if group["max_grad_norm"] > 0 and self.grad_norm is not None:
            share = group["max_grad_norm"] / (self.grad_norm.item() + 1e-6)
            factor *= 1.0 if share >= 1 else share  # a norm that is not a number stays one
        return factor

    # checkpoints ---------------------------------------------------------------------------------------------------

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state dict of this optimizer, or of torch's optimizer of the same family.

        Numbers (lr, betas, weight decay ...) come from the state dict, as in torch. The form of the rule
        (`acceleration`, `decay`, `agr`) stays as constructed, and so a run can switch: state that the rule needs and
        the dict lacks is started as at step 1, `x` and `y` from the parameters. State keeps the optimizer's own type
        (float32 for bf16 parameters) and goes to the parameter's device.

        Raises:
            ValueError: not a state dict, groups or tensors that do not fit the parameters, state that is not finite;
                the optimizer is then as it was.
        """
        if not isinstance(state_dict, dict):
            raise ValueError(f"state_dict must be a dict, as state_dict() returns it; got {state_dict!r}")

        def take(_: torch.optim.Optimizer, incoming: dict[str, Any]) -> dict[str, Any]:
            groups, self._incoming = checkpoint.fitted(self, incoming)
            return {**incoming, "param_groups": groups, "state": {}}

        # Registered last, so that it sees the dict as the user's own hooks leave it. The state goes round torch's own
        # loading, which casts it to the parameter's type and would cut a float32 `x` to bf16.
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
        self._ready = None
        self._every_group = list(self.param_groups)
        if self._given is None:  # made from a pickle, which holds what it was given
            self._given = {id(p) for group in self._every_group for p in group["params"]}
        self._sharder = Sharder()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "backend": self.backend}
