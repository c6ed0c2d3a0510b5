"""Trainer for image classifiers: batches augmented on the device, soft targets, averaged weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from transformers.trainer_callback import TrainerCallback

from hf_winopt.integrations.timing import StepTimer
from recipes.trainer import RecipeTrainer
from recipes.vit.averaging import Averaging
from recipes.vit.experiment import Experiment, steps_in_epoch
from recipes.vit.images import Order, collate
from recipes.vit.objective import Objective
from recipes.vit.schedule import with_drops
from recipes.vit.scores import means, per_image
from recipes.waiting import Waiting


class ImageTrainer(RecipeTrainer):
    """Trains the model of an `Experiment`.

    Args:
        experiment: model and images.
        objective: from a batch to its loss.
        averaging: of the weights.
        repeats: of each image in a batch.
        timer: of the steps.
        lr_drops: epochs from which on the learning rate is a tenth; None for the schedule of the arguments.
    """

    def __init__(
        self,
        experiment: Experiment,
        objective: Objective,
        averaging: Averaging,
        *,
        repeats: int,
        lr_drops: Sequence[float] | None,
        timer: StepTimer,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            model=experiment.model,
            train_dataset=experiment.train,
            eval_dataset=experiment.evaluated["validation"],
            processing_class=experiment.processor,
            data_collator=collate,
            compute_metrics=means,
            preprocess_logits_for_metrics=per_image,
            **kwargs,
        )
        # The loss is the mean of its batch. Trainer 5 takes any model that accepts further keywords for one that
        # divides by the number of items itself, and would add up accumulated gradients without dividing them.
        self.model_accepts_loss_kwargs = False
        self.experiment, self.objective, self.averaging = experiment, objective, averaging
        self.repeats, self.lr_drops = repeats, lr_drops
        self.waiting = Waiting(timer)
        self.add_callback(timer)
        self.add_callback(_AfterStep(averaging))

    def _get_train_sampler(self, *_: Any) -> Order:
        return Order(self.train_dataset, self.train_dataset.seed, self.repeats)

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> Any:
        if self.lr_drops is None or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        self.lr_scheduler = with_drops(
            optimizer or self.optimizer,
            self.lr_drops,
            steps_in_epoch(self.experiment, self.args),
            self.args.get_warmup_steps(num_training_steps),
        )
        return self.lr_scheduler

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        with self.waiting.measured():
            return super().get_batch_samples(*args, **kwargs)

    def compute_loss(
        self, model: nn.Module, inputs: Mapping[str, Any], return_outputs: bool = False, **_: Any
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        loss, logits = self.objective(model, inputs)
        return (loss, {"logits": logits}) if return_outputs else loss

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        with self.averaging.applied():
            return super().evaluate(*args, **kwargs)

    # Saved and loaded with the random numbers, so that a checkpoint that is pushed to the Hub has it too.

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        if self.args.should_save:
            self.averaging.save(Path(output_dir))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        if checkpoint is not None:
            self.averaging.load(Path(checkpoint))


class _AfterStep(TrainerCallback):
    def __init__(self, averaging: Averaging) -> None:
        self.averaging = averaging

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.averaging.update()
