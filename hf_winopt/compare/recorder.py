"""What runs inside a compared training: it keeps Trainer's state, the time per step, and stops what has diverged."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers.trainer_callback import TrainerControl, TrainerState
from transformers.training_args import TrainingArguments

from hf_winopt.compare.outcome import RECORD_FILE, STATE_FILE
from hf_winopt.files import write_json
from hf_winopt.integrations.timing import StepTimer

PROGRESS_FILE = "progress.json"

EXPLODED, IN_A_ROW = 10.0, 3
"""A training loss so many times the first logged one, so many times in a row, has diverged."""


class Recorder(StepTimer):
    """Adds to what Trainer leaves: `trainer_state.json` always, the time per step, the state's size, divergence.

    Of several trainings in a process the last one counts; evaluations by a Trainer that never trained do not.

    Args:
        folder: of the run, where `record.json` and `progress.json` go.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self._begin(None)

    def _begin(self, state: TrainerState | None) -> None:
        self.training = state
        self.seconds.clear()
        self.losses: list[float] = []
        self.diverged = ""
        self.state_bytes: int | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if args.load_best_model_at_end:
            raise ValueError("compare judges all optimizers at equal steps: leave out load_best_model_at_end")
        self._begin(state)
        if state.is_world_process_zero:
            self._show(state)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if state is not self.training:
            return
        self.diverged = self.diverged or self._divergence(logs or {}, kwargs.get("model"))
        if self.diverged:
            control.should_training_stop = True
        # Not at every loss: the state holds the whole history, and a long run has many.
        if self.diverged or any(key.startswith("eval_") for key in logs or {}):
            self._keep(args, state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        super().on_step_end()
        if not self.state_bytes and "optimizer" in kwargs:  # under fp16 the first steps may be skipped
            self.state_bytes = state_bytes(kwargs["optimizer"])
        if state.is_world_process_zero and state.global_step % max(1, state.max_steps // 100) == 0:
            self._show(state)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._keep(args, state)

    def _divergence(self, logs: Mapping[str, Any], model: Any) -> str:
        for key in ("loss", "eval_loss"):
            if key in logs and not math.isfinite(logs[key]):
                return f"{key} is {logs[key]}"
        # Trainer leaves NaN out of the losses it logs, and without clipping may log no norm. A norm that is not finite
        # is no proof: fp16 skips such a step.
        if "loss" in logs and not math.isfinite(logs.get("grad_norm", math.nan)) and not _all_finite(model):
            return "weights are no longer finite"
        if "loss" in logs:
            self.losses.append(logs["loss"])
            first, latest = self.losses[0], self.losses[1:][-IN_A_ROW:]
            exploded = len(latest) == IN_A_ROW and min(latest) > EXPLODED * first
            if exploded and first > 0:  # one that begins at zero is a loss of another kind
                return f"the training loss rose from {first:.3g} to {latest[-1]:.3g}"
        return ""

    def _keep(self, args: TrainingArguments, state: TrainerState) -> None:
        if not state.is_world_process_zero:
            return
        output = Path(str(args.output_dir))
        output.mkdir(parents=True, exist_ok=True)
        partial = output / f".{STATE_FILE}.{os.getpid()}"
        state.save_to_json(str(partial))
        os.replace(partial, output / STATE_FILE)
        record = {"seconds_per_step": self.median, "state_bytes": self.state_bytes, "diverged": self.diverged}
        write_json(self.folder / RECORD_FILE, record)
        self._show(state)

    def _show(self, state: TrainerState) -> None:
        write_json(self.folder / PROGRESS_FILE, {"step": state.global_step, "steps": state.max_steps}, indent=None)


def state_bytes(optimizer: Any) -> int | None:
    """Bytes of all tensors in the optimizer's state; None where a wrapper hides it."""
    if not hasattr(optimizer, "state"):
        return None
    return sum(
        value.numel() * value.element_size()
        for state in optimizer.state.values()
        for value in (state.values() if isinstance(state, Mapping) else ())
        if isinstance(value, torch.Tensor)
    )


@torch.no_grad()
def _all_finite(model: torch.nn.Module | None) -> bool:
    parameters: Iterable[torch.Tensor] = () if model is None else model.parameters()
    return all(bool(parameter.isfinite().all()) for parameter in parameters)
