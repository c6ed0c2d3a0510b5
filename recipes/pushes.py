"""`--push_to_hub` in the plain Accelerate scripts: what Trainer pushes, when `--hub_strategy` says so."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from accelerate import Accelerator
from transformers import TrainingArguments
from transformers.trainer_callback import TrainerState

from hf_winopt.integrations.private import CHECKPOINT
from hf_winopt.integrations.push import Pushed, PushError, open_repository, push_run
from recipes.common import RecipeError


class Pushes:
    """Pushes from the main process, which is done when it returns; the others wait where they next need it.

    A checkpoint that cannot be pushed is a warning, since a later one may be; the last push is an error.

    Raises:
        RecipeError: the repository cannot be had.
    """

    def __init__(self, accelerator: Accelerator, args: TrainingArguments) -> None:
        self.args, self.is_main = args, accelerator.is_main_process
        self.strategy = str(getattr(args.hub_strategy, "value", args.hub_strategy))
        self.repo_id = args.hub_model_id or Path(args.output_dir).resolve().name
        if args.push_to_hub and self.is_main:
            try:
                options = {"private": args.hub_private_repo, "token": args.hub_token, "revision": self._revision}
                self.repo_id = open_repository(self.repo_id, **options)
            except PushError as error:
                raise RecipeError(f"--push_to_hub: {error}") from error

    def checkpoint(self, state: TrainerState, save: Callable[[Path], None]) -> None:
        """After a checkpoint was saved; for all processes, since `save` puts the model into the output folder."""
        if not self.args.push_to_hub or self.strategy == "end":
            return
        save(Path(self.args.output_dir))
        name = f"{CHECKPOINT}{state.global_step}"
        whole = {"checkpoint": "last-checkpoint", "all_checkpoints": name}.get(self.strategy)
        try:
            self._push(f"Training in progress, step {state.global_step}", name if whole else None, whole)
        except PushError as error:
            print(f"{name} could not be pushed: {error}", file=sys.stderr)

    def report(self) -> None:
        """After the model and its report were written."""
        try:
            pushed = self._push("Model, card and results")
        except PushError as error:
            raise RecipeError(f"trained, but not pushed: {error}\n{self._later()}") from error
        if pushed is not None:
            print(f"pushed to {pushed.url}")

    def _push(self, message: str, checkpoint: str | None = None, name: str | None = None) -> Pushed | None:
        if not self.args.push_to_hub or not self.is_main:
            return None
        return push_run(
            self.args.output_dir,
            self.repo_id,
            with_optimizer=checkpoint is not None,
            checkpoint=checkpoint,
            **({} if name is None else {"checkpoint_name": name}),
            token=self.args.hub_token,
            revision=self._revision,
            message=message,
            report=lambda _: None,
        )

    @property
    def _revision(self) -> str | None:
        return getattr(self.args, "hub_revision", None)  # from Trainer 4.56 on

    def _later(self) -> str:
        return f"Push it later: hf-winopt push {self.args.output_dir} {self.repo_id}"
