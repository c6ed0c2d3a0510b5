"""Lightning's automatic optimization with our optimizers: what it does is what a loop by hand does, to the bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, TensorDataset

from hf_winopt import create_optimizer

lightning = pytest.importorskip("lightning")
NAMES = ("adamw_win", "lamb_win2", "adan_win_agr")
CLIP, TOGETHER, BATCHES = 0.5, 2, 8
"""The norm to which gradients are clipped, the batches of a step and those of an epoch."""


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1))


def optimizers(name: str, parameters: Any) -> tuple[torch.optim.Optimizer, LambdaLR]:
    optimizer = create_optimizer(name, parameters, lr=2e-2, weight_decay=0.1)
    return optimizer, LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 4))


class Regression(lightning.LightningModule):  # type: ignore[misc, name-defined]
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.net, self.losses = name, net(), []

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer, schedule = optimizers(self.name, self.net.parameters())
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        inputs, targets = batch
        loss = nn.functional.mse_loss(self.net(inputs), targets)
        self.losses.append(loss.item())
        return loss


def data() -> DataLoader:
    inputs = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(inputs, inputs.sum(1, keepdim=True)), batch_size=64 // BATCHES)


def fit(name: str, precision: str, folder: Any, epochs: int, **options: Any) -> tuple[Regression, Any]:
    module = Regression(name)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = lightning.Trainer(
        accelerator="cpu", devices=1, precision=precision, max_epochs=epochs, default_root_dir=folder,
        accumulate_grad_batches=TOGETHER, gradient_clip_val=CLIP, **quiet,
    )  # fmt: skip
    trainer.fit(module, data(), **options)
    return module, trainer


def by_hand(name: str, precision: str, epochs: int) -> nn.Module:
    model = net()
    optimizer, schedule = optimizers(name, model.parameters())
    for index, (inputs, targets) in enumerate([batch for _ in range(epochs) for batch in data()], start=1):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed", cache_enabled=False):
            loss = nn.functional.mse_loss(model(inputs), targets)
        (loss / TOGETHER).backward()
        if index % TOGETHER == 0:
            norm = nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            assert index > TOGETHER or norm > CLIP, "nothing was clipped"
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    return model


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("name", NAMES)
def test_as_by_hand(name, precision, tmp_path):
    module, trainer = fit(name, precision, tmp_path, epochs=5)
    assert trainer.global_step == 5 * BATCHES // TOGETHER
    ends = module.net.state_dict(), by_hand(name, precision, epochs=5).state_dict()
    torch.testing.assert_close(*ends, rtol=0, atol=0)
    assert sum(module.losses[-BATCHES:]) < sum(module.losses[:BATCHES])


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_goes_on_to_the_same_bits(name, precision, tmp_path):
    checkpoint = tmp_path / "one_epoch.ckpt"
    _, stopped = fit(name, precision, tmp_path, epochs=1)
    stopped.save_checkpoint(checkpoint)
    resumed, _ = fit(name, precision, tmp_path, epochs=3, ckpt_path=checkpoint)
    whole, _ = fit(name, precision, tmp_path, epochs=3)
    assert resumed.losses == whole.losses[BATCHES:]
    ends = resumed.net.state_dict(), whole.net.state_dict()
    torch.testing.assert_close(*ends, rtol=0, atol=0)


def test_fabric_clips_in_mixed_precision():
    fabric = lightning.Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    model = net()
    optimizer, _ = optimizers("adamw_win", model.parameters())
    model, optimizer = fabric.setup(model, optimizer)
    inputs, targets = next(iter(data()))
    losses = []
    for _ in range(10):
        loss = nn.functional.mse_loss(model(inputs), targets)
        fabric.backward(loss)
        fabric.clip_gradients(model, optimizer, max_norm=CLIP)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
