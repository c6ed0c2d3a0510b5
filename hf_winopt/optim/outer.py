"""What optimizers share whose groups and state are other optimizers': checkpoints, with torch's hooks around them."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer


class Outer(Optimizer):
    """An optimizer of others; a subclass says what it saves, and loads what was checked for its form."""

    def _saved(self) -> dict[str, Any]:
        raise NotImplementedError

    def _load(self, state_dict: dict[str, Any]) -> None:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """The state dict, of the form that torch's has."""
        for hook in self._optimizer_state_dict_pre_hooks.values():
            hook(self)
        state_dict = self._saved()
        for after in self._optimizer_state_dict_post_hooks.values():
            changed = after(self, state_dict)
            state_dict = state_dict if changed is None else changed
        return state_dict

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state dict.

        Raises:
            ValueError: one that does not fit, or that one of the others refuses. All is then as it was.
        """
        for hook in self._optimizer_load_state_dict_pre_hooks.values():
            changed = hook(self, state_dict)
            state_dict = state_dict if changed is None else changed
        if not isinstance(state_dict, dict) or not {"state", "param_groups"} <= state_dict.keys():
            raise ValueError(f"state_dict must have 'state' and 'param_groups'; got {state_dict!r}"[:300])
        self._load(state_dict)
        for after in self._optimizer_load_state_dict_post_hooks.values():
            after(self)
