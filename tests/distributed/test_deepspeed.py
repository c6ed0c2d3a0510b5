"""DeepSpeed's engine, ZeRO-1 to 3: element by element what one process learns is learned, the rest is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import SequentialSampler

from hf_winopt.optim.base import RuleOptimizer
from tests.distributed.deepspeeds import (
    ELEMENTWISE,
    OPTIONS,
    ROWS,
    Net,
    batches,
    check,
    config,
    engine,
    learned_alone,
    loss_of,
    optimizer_of,
    together_under_deepspeed,
    train,
    whole,
)

pytest.importorskip("deepspeed")

STAGES = (1, 2, 3)
CLIP = 0.5
OF_WHOLE_PARAMETERS = (
    ("adamw_agr", {}, "an optimizer without AGR"),
    ("adan_win_agr", {}, "an optimizer without AGR"),
    ("adal", {}, "another optimizer, such as adamw_win"),
    ("lamb", {}, "another optimizer, such as adamw_win"),
    ("adamw_win", {"max_grad_norm": CLIP}, "the clipping of Trainer, Accelerate or DeepSpeed"),
    ("adan", {"skip_nonfinite": True}, "skip_nonfinite=False"),
)
both = pytest.mark.parametrize("processes", [1, 2])


def element_by_element() -> None:
    for stage in STAGES:
        for name in ELEMENTWISE:
            net = Net()
            mine = engine(net, optimizer_of(net, name), config(stage))
            train(mine, 4)
            check(whole(mine), learned_alone(name, 4), 1e-5, f"{name}, ZeRO-{stage}")
        net = Net()
        mine = engine(net, optimizer_of(net, "adamw_win"), config(stage, gradient_clipping=CLIP))
        train(mine, 4)
        check(whole(mine), learned_alone("adamw_win", 4, CLIP), 1e-5, f"clipped by DeepSpeed, ZeRO-{stage}")


@both
def test_what_works_element_by_element_is_exact(processes: int, tmp_path: Path) -> None:
    together_under_deepspeed(processes, element_by_element, tmp_path)


def of_whole_parameters() -> None:
    for name, more, instead in OF_WHOLE_PARAMETERS:
        for stage in STAGES:
            net = Net()
            mine = engine(net, optimizer_of(net, name, **more), config(stage))
            before = whole(mine)
            with pytest.raises(RuntimeError, match=f"flat pieces, as DeepSpeed.*Use FSDP2 or DDP, or {instead}"):
                train(mine, 1)
            assert all(map(torch.equal, whole(mine), before)) and not mine.basic_optimizer.state, (name, stage)
        net = Net()
        mine = engine(net, optimizer_of(net, name, **more), config(0))  # where nothing is in pieces
        train(mine, 4)
        check(whole(mine), learned_alone(name, 4, **more), 1e-5, f"{name} without ZeRO")


@both
def test_what_needs_whole_parameters_is_refused_with_nothing_changed(processes: int, tmp_path: Path) -> None:
    together_under_deepspeed(processes, of_whole_parameters, tmp_path)


def learned_in_bf16(name: str, steps: int) -> list[torch.Tensor]:
    """By a bf16 copy of float32 parameters, as ZeRO keeps them."""
    kept, used = Net().bfloat16().float(), Net().bfloat16()
    optimizer = optimizer_of(kept, name)
    for x in batches(steps, dtype=torch.bfloat16):
        loss_of(used(x)).backward()
        for p, q in zip(kept.parameters(), used.parameters(), strict=True):
            p.grad, q.grad = q.grad.float(), None
        optimizer.step()
        with torch.no_grad():
            for p, q in zip(kept.parameters(), used.parameters(), strict=True):
                q.copy_(p)
    return [q.detach() for q in used.parameters()]


def in_bf16() -> None:
    alone = dist.get_world_size() == 1  # several add up bf16 gradients, each of which was rounded
    for stage in STAGES:
        for name in ("adamw_win", "adan"):
            net = Net()
            mine = engine(net, optimizer_of(net, name), config(stage, bf16={"enabled": True}))
            train(mine, 4, dtype=torch.bfloat16)
            right = learned_in_bf16(name, 4)
            check(whole(mine), right, 0 if alone else 2e-2, f"{name} in bf16, ZeRO-{stage}")
            kept = [value for state in mine.basic_optimizer.state.values() for value in state.values()]
            assert kept and all(value.dtype == torch.float32 for value in kept)


@both
def test_bf16_parameters_have_float32_state(processes: int, tmp_path: Path) -> None:
    together_under_deepspeed(processes, in_bf16, tmp_path)


def saved_and_loaded(folder: str) -> None:
    for stage in (0, *STAGES):
        for name in ("adamw_win2", "sgd_win"):
            where = f"{folder}/{stage}/{name}"
            net = Net()
            undisturbed = engine(net, optimizer_of(net, name), config(stage))
            train(undisturbed, 3)
            undisturbed.save_checkpoint(where)
            train(undisturbed, 3, start=3)
            net = Net()
            resumed = engine(net, optimizer_of(net, name), config(stage))
            resumed.load_checkpoint(where)
            train(resumed, 3, start=3)
            check(whole(resumed), whole(undisturbed), 0, f"{name}, ZeRO-{stage}, resumed")
            assert not all(map(torch.equal, whole(resumed), learned_alone(name, 3)))


@both
def test_a_checkpoint_of_the_engine_is_gone_on_from_to_the_same_bits(processes: int, tmp_path: Path) -> None:
    together_under_deepspeed(processes, saved_and_loaded, tmp_path / "meet", str(tmp_path))


def by_accelerate() -> None:
    from accelerate import Accelerator, PartialState
    from accelerate.state import AcceleratorState
    from accelerate.utils import DeepSpeedPlugin

    here, processes = dist.get_rank(), dist.get_world_size()
    for stage in STAGES:
        for name, refused in (("adamw_win", False), ("lamb", True)):
            AcceleratorState._reset_state(True)
            PartialState(cpu=True)  # told of the CPU itself, Accelerator would leave DeepSpeed out
            plugin = DeepSpeedPlugin(zero_stage=stage, gradient_accumulation_steps=1, gradient_clipping=CLIP)
            plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = ROWS // processes
            accelerator = Accelerator(deepspeed_plugin=plugin)
            net = Net()
            model, optimizer = accelerator.prepare(net, optimizer_of(net, name))
            assert isinstance(model.basic_optimizer, RuleOptimizer)
            if refused:
                x = batches(1)[0].chunk(processes)[here]
                with pytest.raises(RuntimeError, match="LAMB takes norms of whole parameters"):
                    accelerator.backward(loss_of(model(x)))  # DeepSpeed's step is taken in it
                continue
            for x in batches(4):
                accelerator.backward(loss_of(model(x.chunk(processes)[here])))
                optimizer.step()
                optimizer.zero_grad()
            check(whole(model), learned_alone(name, 4, CLIP), 1e-5, f"{name} by Accelerate, ZeRO-{stage}")


def test_prepared_by_accelerate(tmp_path: Path) -> None:
    together_under_deepspeed(2, by_accelerate, tmp_path)


class Learner(nn.Module):
    """As Trainer wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": loss_of(self.net(x), labels[:, None])}


def by_trainer(folder: str) -> None:
    from transformers import Trainer, TrainingArguments

    class InOrder(Trainer):
        def _get_train_sampler(self, *_: object) -> SequentialSampler:
            return SequentialSampler(rows)

    rows = [{"x": x, "labels": 1.0} for x in torch.cat(batches(4))]
    for stage, name in ((2, "adamw_win"), (3, "adan"), (1, "lamb")):
        given = {**config(stage), "train_micro_batch_size_per_gpu": "auto", "gradient_clipping": "auto"}
        del given["zero_allow_untested_optimizer"]  # Trainer says it
        path = Path(folder, f"{stage}_of_{dist.get_rank()}.json")
        path.write_text(json.dumps(given), encoding="utf-8")
        args = TrainingArguments(
            str(path.with_suffix("")),
            optim=name,
            deepspeed=str(path),
            learning_rate=OPTIONS["lr"],
            weight_decay=OPTIONS["weight_decay"],
            max_grad_norm=CLIP,
            lr_scheduler_type="constant",
            per_device_train_batch_size=ROWS // dist.get_world_size(),
            max_steps=4,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        )
        trainer = InOrder(Learner(), args, train_dataset=rows)
        if name == "lamb":
            with pytest.raises(RuntimeError, match="LAMB takes norms of whole parameters"):
                trainer.train()
            continue
        trainer.train()
        assert trainer.model_wrapped.zero_optimization_stage() == stage
        check(whole(trainer.model_wrapped), learned_alone(name, 4, CLIP), 1e-5, f"{name} by Trainer, ZeRO-{stage}")


def test_trainer(tmp_path: Path) -> None:
    together_under_deepspeed(2, by_trainer, tmp_path / "meet", str(tmp_path))
