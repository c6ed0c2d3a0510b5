"""The names that are no rule of ours: Muon, and Win around the optimizers of others."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch.optim import Optimizer

from . import wrapped
from .muon_adamw import muon
from .papers import titles


@dataclass(frozen=True)
class Composed:
    """What a name means.

    Args:
        name: what `--optim` and `create_optimizer` take.
        make: makes the optimizer: `make(params, lr=..., **options)`.
        base: whose step it is, for people.
        sources: keys of `papers.PAPERS`.
        when: one line on when to use it.
        kept: bytes of state per float32 parameter, at `state="float32"` and "compact".
        fixed: as of `registry.Row`.
        lr_scale: the learning rate to try first, as a multiple of AdamW's.
        needs: what `pip install` brings, beside torch and transformers.
    """

    name: str
    make: Callable[..., Optimizer]
    base: str
    sources: tuple[str, ...]
    when: str
    kept: tuple[float, float]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    lr_scale: float = 1.0
    needs: str | None = None

    @property
    def paper(self) -> str:
        """The papers, by title."""
        return titles(self.sources)

    @property
    def formula(self) -> str:
        """Where in `docs/math.md` it stands."""
        acceleration = self.fixed.get("acceleration", "none")
        return "3 Muon beside AdamW" if acceleration == "none" else f"3 {acceleration} around {self.base}"

    @property
    def options(self) -> dict[str, Any]:
        """Every option with the value that it has under this name."""
        parameters = inspect.signature(self.make).parameters.values()
        own = {each.name: each.default for each in parameters if each.default is not each.empty}
        return {**own, **self.fixed}


_WIN = {"acceleration": "win"}

_ROWS = (
    Composed("muon", muon, "torch Muon, AdamW", ("Muon",), "hidden matrices by Muon, the rest by AdamW", (4, 4),
             {"acceleration": "none"}),
    Composed("muon_win", muon, "torch Muon, AdamW", ("Muon", "Win"), "unpublished: Muon accelerated by Win", (8, 5),
             _WIN),
    Composed("lion_win", wrapped.lion_win, "pytorch_optimizer Lion", ("Lion", "Win"),
             "unpublished: Lion accelerated by Win", (8, 5), _WIN, lr_scale=0.2, needs="pytorch_optimizer"),
    Composed("adafactor_win", wrapped.adafactor_win, "transformers Adafactor", ("Adafactor", "Win"),
             "unpublished: Adafactor accelerated by Win", (4, 1), _WIN),
    Composed("adamw_8bit_win", wrapped.adamw_8bit_win, "bitsandbytes AdamW8bit", ("8bit", "Win"),
             "ours is adamw_win with state=8bit", (6, 3), _WIN, needs="bitsandbytes"),
    Composed("adamw_torch_8bit_win", wrapped.adamw_torch_8bit_win, "torchao AdamW8bit", ("8bit", "Win"),
             "ours is adamw_win with state=8bit", (6, 3), _WIN, needs="torchao"),
    Composed("rmsprop_win", wrapped.rmsprop_win, "torch RMSprop", ("RMSprop", "Win"),
             "unpublished: RMSprop accelerated by Win", (8, 5), _WIN),
    Composed("ademamix_win", wrapped.ademamix_win, "pytorch_optimizer AdEMAMix", ("AdEMAMix", "Win"),
             "unpublished: AdEMAMix accelerated by Win", (16, 13), _WIN, needs="pytorch_optimizer"),
)  # fmt: skip

COMPOSED: dict[str, Composed] = {row.name: row for row in _ROWS}
"""Every such name, in order."""
