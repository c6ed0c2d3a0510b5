"""Trainer for a model with a memory: batches in the order of the text, memory in the checkpoints, perplexity."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.utils.data import DataLoader, SequentialSampler
from transformers.trainer_utils import EvalLoopOutput

from recipes.common import RecipeError
from recipes.trainer import RecipeTrainer
from recipes.transformer_xl import perplexity
from recipes.transformer_xl.memory import Memory
from recipes.transformer_xl.streams import collate


class TransfoXLTrainer(RecipeTrainer):
    """Trains on `Streams` and evaluates on others.

    Args:
        eval_config: what the model's configuration is changed to in evaluations; None stays as it is.
    """

    def __init__(self, *args: Any, eval_config: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(*args, data_collator=collate, **kwargs)
        # The loss is the mean of its batch. Trainer 5 takes any model that accepts further keywords for one that
        # divides by the number of words itself, and would add up accumulated gradients without dividing them.
        self.model_accepts_loss_kwargs = False
        self.memory = Memory(self.train_dataset)
        self.eval_config = eval_config

    def _get_train_sampler(self, *_: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)

    def get_train_dataloader(self) -> DataLoader[Any]:
        parts = self.args.gradient_accumulation_steps * self.args.world_size
        if self._train_batch_size * parts != self.train_dataset.rows:
            raise RecipeError(
                f"batches of {self._train_batch_size} in {parts} parts are not {self.train_dataset.rows} rows: "
                "Trainer 4 takes the batch size from the checkpoint, so give the same"
            )
        return super().get_train_dataloader()

    def compute_loss(
        self, model: nn.Module, inputs: Mapping[str, Any], return_outputs: bool = False, **_: Any
    ) -> Tensor | tuple[Tensor, Any]:
        output = self.memory.read(model, inputs)
        return (output.loss, output) if return_outputs else output.loss

    # The state that every process has for itself, and saves and loads when its random numbers are: so a checkpoint that
    # is pushed to the Hub has it too.

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        self.memory.save(Path(output_dir), self.args.process_index, self.args.world_size)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        if checkpoint is not None:
            self.memory.load(Path(checkpoint))

    def evaluation_loop(
        self,
        dataloader: DataLoader[Any],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """The mean loss of a word and the perplexity, over the whole text."""
        model = self.model_wrapped
        training = model.training
        switching = [model] + [self.optimizer] * callable(getattr(self.optimizer, "eval", None))  # schedule-free ones
        for each in switching:
            each.eval()
        with self.compute_loss_context_manager(), perplexity.changed(self.model.config, **self.eval_config):
            loss = perplexity.mean_loss(model, dataloader.dataset, self._shown(dataloader), self.accelerator)
        if training:
            for each in switching:
                each.train()
        metrics = {"loss": loss, "perplexity": perplexity.perplexity(loss)}
        return EvalLoopOutput(
            predictions=None,
            label_ids=None,
            metrics={f"{metric_key_prefix}_{name}": value for name, value in metrics.items()},
            num_samples=len(dataloader.dataset),
        )

    def _shown(self, dataloader: DataLoader[Any]) -> Any:
        self.callback_handler.eval_dataloader = dataloader
        for batch in dataloader:
            yield self._prepare_inputs(batch)
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
