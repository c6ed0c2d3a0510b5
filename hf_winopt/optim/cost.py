"""What a step costs: the bytes that it moves, and those that are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn.parameter import is_lazy

from .. import engine
from ..rules import Rule, agr_ends, agr_suits
from .levels import rule_for
from .norm import HeedsNorm


def agr_is_off(rule: Rule, group: Mapping[str, Any], suits: bool, t: int) -> bool:
    """Whether AGR, which the rule has, leaves a parameter alone at its step `t`; `suits`: whether AGR is for it."""
    return rule.transform == "agr" and (not suits or agr_ends(t, group["agr_steps"]))


class KnowsCost(HeedsNorm):
    """What an optimizer of rules, with its groups and state, says of its own cost."""

    def bytes_per_param(self) -> float:
        """Bytes that a step must read and write per element: the mean over what is trained, as it is grouped."""
        moved, elements = 0.0, 0
        for group in self.param_groups:
            for p in group["params"]:
                if is_lazy(p) or not p.requires_grad:  # has no elements yet; is frozen
                    continue
                moved += p.numel() * self._bytes_of(group, p)
                elements += p.numel()
        return moved / elements if elements else 0.0

    def _bytes_of(self, group: dict[str, Any], p: Tensor) -> float:
        rule, width = rule_for(self.rule(group), p), engine.compute_dtype(p.dtype).itemsize
        state = self._own_state.get(p, {})
        t = int(state["step"]) + 1 if "step" in state else 1
        decays, transforms = group["weight_decay"] > 0, not agr_is_off(rule, group, agr_suits(p), t)
        norm = p.element_size() if self._needs_norm() else 0
        return rule.bytes_per_param(p.element_size(), width, decays, transforms) + norm

    def state_bytes(self) -> int:
        """Bytes of all state tensors held now by this process; state is made at a parameter's first step."""
        mine = [state for state in self._own_state.values() if isinstance(state, dict)]
        tensors = [value for state in mine for value in state.values() if isinstance(value, Tensor)]
        return sum(each.numel() * each.element_size() for each in map(engine.local, tensors))
