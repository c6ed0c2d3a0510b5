"""What all optimizers here share: groups, state, the closure, and a step that hands every parameter to an engine."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from .. import engine
from ..engine.norms import grad_norm
from ..rules import OFF, Coefficients, Rule, agr_applies, coefficients
from . import checkpoint
from .options import Check, check_backend

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def options_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a parameter group among the local names at the start of a constructor."""
    return {name: value for name, value in arguments.items() if name not in ("self", "params", "backend", "__class__")}


def _agr_is_off(rule: Rule, group: Mapping[str, Any], p: Tensor, t: int) -> bool:
    return rule.transform == "agr" and not agr_applies(p.ndim, t, group["agr_steps"])


def _refuse_sharded(params: Iterable[Tensor]) -> None:
    if any(hasattr(p, "to_local") for p in params):
        raise TypeError(
            "params must be whole tensors; got a DTensor (FSDP2 or tensor parallel), which is not stepped yet. "
            "Use DDP, or torch.optim.AdamW with sharded parameters"
        )


def _check_parameters(params: list[Tensor]) -> None:
    for p in params:
        if p.dtype not in DTYPES:
            right = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
            raise TypeError(f"params must be of dtype {right}; got a parameter of {p.dtype}")
    if len(set(params)) < len(params):
        raise ValueError("params must be distinct; got a parameter twice in one group")
    _refuse_sharded(params)


class RuleOptimizer(torch.optim.Optimizer):
    """An optimizer whose update is a `Rule`; a subclass says which, from the options of a parameter group.

    State and arithmetic are float32 whatever the type of a parameter (float64 for float64 parameters).
    """

    checks: ClassVar[Mapping[str, Check]] = {}
    """Checks of options that mean here something else than elsewhere."""

    grad_norm: Tensor | None = None
    """Norm of all gradients at the last step, before clipping: a 0-dim tensor; None without `max_grad_norm`."""

    def __init__(self, params: ParamsT, defaults: dict[str, Any], backend: str) -> None:
        check_backend("backend", backend)
        self.backend = backend
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
        checkpoint.check_group({**self.defaults, **param_group}, type(self))
        super().add_param_group(param_group)
        try:
            _check_parameters(self.param_groups[-1]["params"])
        except (TypeError, ValueError):
            del self.param_groups[-1]
            raise

    # stepping ------------------------------------------------------------------------------------------------------

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
        stepping = [
            (self.rule(group), group, params)
            for group in self.param_groups
            if (params := [p for p in group["params"] if p.grad is not None])
        ]
        grads = [p.grad for _, _, params in stepping for p in params]
        if any(g.is_sparse for g in grads):
            raise ValueError(
                f"{type(self).__name__} does not take sparse gradients. Use a dense embedding (sparse=False), "
                "or torch.optim.SparseAdam for the sparse parameters"
            )
        _refuse_sharded(p for _, _, params in stepping for p in params)
        self.grad_norm = grad_norm(grads) if self._clips() else None
        works: defaultdict[Rule, list[engine.Work]] = defaultdict(list)
        for rule, group, params in stepping:
            works[rule] += self._works(rule, group, params)
        for rule, mine in works.items():
            engine.step(self.backend, rule, mine)
        return loss

    def _works(self, rule: Rule, group: dict[str, Any], params: list[Tensor]) -> list[engine.Work]:
        """The parameters of one group, counted one step on, each with its state and the numbers of its step."""
        states = [self._started(p, rule) for p in params]
        self._count(group, states)
        grad = self._grad_factor(group)
        numbers: dict[tuple[int, bool], Coefficients] = {}
        works = []
        for p, state in zip(params, states):
            assert p.grad is not None  # as `step` chose them
            t = int(state["step"].item())
            off = _agr_is_off(rule, group, p, t)
            if (t, off) not in numbers:
                numbers[t, off] = {**coefficients(rule, group, t, grad), **({"abs_sum": OFF} if off else {})}
            tensors = {name: state[name] for name in rule.state_names}
            works.append(engine.Work(p, p.grad, tensors, numbers[t, off]))
        return works

    def _started(self, param: Tensor, rule: Rule) -> dict[str, Tensor]:
        """The parameter's state; what is missing of it is started as at step 1."""
        state = self.state[param]
        if "step" not in state:
            state["step"] = torch.zeros((), dtype=torch.float32, device="cpu")
        for name in {"x", "y"}.intersection(state).difference(rule.state_names):
            del state[name]  # left behind when `acceleration` was switched: it would be stale when switched back
        dtype = engine.compute_dtype(param.dtype)
        for name in rule.state_names:
            if name not in state:
                zeros = torch.zeros_like(param, dtype=dtype, memory_format=torch.preserve_format)
                # x and y start at z. The copy keeps the layout of the parameter: they then share one flat order
                state[name] = zeros.copy_(param) if name in ("x", "y") else zeros
        return state

    def _count(self, group: dict[str, Any], states: list[dict[str, Tensor]]) -> None:
        torch._foreach_add_([state["step"] for state in states], 1)

    def _clips(self) -> bool:
        return any(group["max_grad_norm"] > 0 for group in self.param_groups)

    def _grad_factor(self, group: dict[str, Any]) -> float:
        """What section 0 multiplies the gradient by."""
        factor = -1.0 if group["maximize"] else 1.0
        if group["max_grad_norm"] > 0 and self.grad_norm is not None:
            share = group["max_grad_norm"] / (self.grad_norm.item() + 1e-6)
            factor *= 1.0 if share >= 1 else share  # a norm that is not a number stays one
        return factor

    # cost ----------------------------------------------------------------------------------------------------------

    def bytes_per_param(self) -> float:
        """Bytes that a step must read and write per element, the mean over all parameters as they are grouped."""
        moved = elements = 0
        for group in self.param_groups:
            for p in group["params"]:
                moved += p.numel() * self._bytes_of(group, p)
                elements += p.numel()
        return moved / elements if elements else 0.0

    def _bytes_of(self, group: dict[str, Any], p: Tensor) -> int:
        rule, state = self.rule(group), engine.compute_dtype(p.dtype).itemsize
        t = int(self.state[p]["step"].item()) + 1 if "step" in self.state.get(p, {}) else 1
        decays, transforms = group["weight_decay"] > 0, not _agr_is_off(rule, group, p, t)
        clipping = p.element_size() if self._clips() else 0
        return rule.bytes_per_param(p.element_size(), state, decays, transforms) + clipping

    def state_bytes(self) -> int:
        """Bytes of all state tensors held now; state is made at a parameter's first step."""
        return sum(
            value.numel() * value.element_size()
            for state in self.state.values()
            for value in state.values()
            if isinstance(value, Tensor)
        )

    # checkpoints ---------------------------------------------------------------------------------------------------

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state dict of this optimizer, or of torch's optimizer of the same family.

        Numbers (lr, betas, weight decay ...) come from the state dict, as in torch. The form of the rule
        (`acceleration`, `decay`, `agr`) stays as constructed, and so a run can switch: state that the rule needs and
        the dict lacks is started as at step 1, `x` and `y` from the parameters. State keeps the optimizer's own type
        (float32 for bf16 parameters) and goes to the parameter's device.

        Raises:
            ValueError: groups or tensors that do not fit the parameters; the optimizer is then as it was.
        """

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

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "backend": self.backend}
