"""Levels of state as a user meets them: what is kept, of which parameters, and that steps are as before."""

from __future__ import annotations

import re
import warnings

import pytest
import torch

from hf_winopt import LAMB, OPTIMIZERS, SGD, AdaL, Adam, AdamW, Adan
from tests.optim.leveled import BLOCKED, LEVELS, LR, everything, go_on, model, optimizer_of, same, types

CLASSES = [AdamW, Adam, LAMB, SGD, Adan, AdaL]
BYTES = {
    "adamw_win": {"float32": (12, 36), "compact": (5.06, 22.1), "8bit": (3.09, 18.2)},
    "adamw_win2": {"float32": (16, 44), "compact": (6.09, 24.2), "8bit": (4.12, 20.3)},
    "adam_l2": {"float32": (8, 28), "compact": (4.03, 20.1), "8bit": (2.06, 16.1)},
    "adan": {"float32": (16, 44), "compact": (7.06, 26.1), "8bit": (4.12, 20.3)},
    "sgd_win": {"float32": (8, 28), "compact": (3.03, 18.1), "8bit": (2.06, 16.1)},
}
"""Kept and moved for each element, as the table of the levels says."""

TYPES = {
    "float32": dict.fromkeys(("exp_avg", "exp_avg_sq", "x_gap", "y_gap"), torch.float32),
    "compact": {
        "exp_avg": torch.bfloat16,
        "exp_avg_sq": torch.float16,
        "exp_avg_sq_scale": torch.float32,
        **dict.fromkeys(("x_gap", "y_gap"), torch.int8),
        **dict.fromkeys(("x_gap_scale", "y_gap_scale"), torch.float32),
    },
    "8bit": {
        **dict.fromkeys(("exp_avg", "x_gap", "y_gap"), torch.int8),
        "exp_avg_sq": torch.uint8,
        **dict.fromkeys(("exp_avg_scale", "exp_avg_sq_scale", "x_gap_scale", "y_gap_scale"), torch.float32),
    },
}
"""Of Adam's moments with Win2 of float32 parameters."""

EVERY_LEVEL = pytest.mark.parametrize("level", LEVELS)


# what is kept --------------------------------------------------------------------------------------------------------


@EVERY_LEVEL
@pytest.mark.parametrize("name", BYTES)
def test_bytes(name, level):
    kept, moved = BYTES[name][level]
    rule = OPTIMIZERS[name].at(level)
    assert rule.state_bytes_per_param() == pytest.approx(kept, abs=0.006)
    assert rule.bytes_per_param(weight_decay=False) == pytest.approx(moved, abs=0.051)
    p = torch.nn.Parameter(torch.randn(1024, 1024))
    optimizer = optimizer_of(name, [p], level, weight_decay=0.0)
    assert optimizer.state_bytes() == 0
    assert optimizer.bytes_per_param() == pytest.approx(moved, abs=0.051)
    p.grad = torch.randn(1024, 1024)
    optimizer.step()
    assert (optimizer.state_bytes() - 4) / p.numel() == rule.state_bytes_per_param()  # the count is 4


@pytest.mark.parametrize("level, kept, moved", [("float32", 12, 30), ("compact", 6.03, 18.1), ("8bit", 4.06, 14.1)])
def test_bytes_of_half_precision(level, kept, moved):
    p = torch.nn.Parameter(torch.randn(1024, 1024).bfloat16())
    optimizer = optimizer_of("adamw_win", [p], level)
    assert optimizer.bytes_per_param() == pytest.approx(moved, abs=0.051)
    p.grad = torch.randn_like(p)
    optimizer.step()
    assert (optimizer.state_bytes() - 4) / p.numel() == pytest.approx(kept, abs=0.006)


@EVERY_LEVEL
def test_types_and_shapes(level):
    parameters = model()
    optimizer = optimizer_of("adamw_win2", parameters, level)
    go_on(parameters, optimizer, 0, steps=1)
    for p in parameters:
        is_blocked = p.ndim > 1
        expected = TYPES[level if is_blocked else "float32"]
        state = dict(optimizer.state[p])
        step = state.pop("step")
        assert step.dtype == torch.float32 and types(state) == expected
        for name, tensor in state.items():
            row = p[0].numel()
            assert tensor.shape == ((p.shape[0], -(-row // 128)) if name.endswith("_scale") else p.shape)
            assert type(tensor) is torch.Tensor and tensor.is_contiguous()


@pytest.mark.parametrize("level", BLOCKED)
@pytest.mark.parametrize(
    "make, is_blocked",
    [
        (lambda: torch.randn(64, 64), True),
        (lambda: torch.randn(64, 64).bfloat16(), True),
        (lambda: torch.randn(64, 64).half(), True),
        (lambda: torch.randn(1, 4096), True),
        (lambda: torch.randn(32, 2, 8, 8), True),
        (lambda: torch.randn(63, 65), False),  # 4095 elements
        (lambda: torch.randn(1000, 63), False),
        (lambda: torch.randn(100_000), False),
        (lambda: torch.randn(4096, 1), False),
        (lambda: torch.randn(64, 64).double(), False),
        (lambda: torch.randn(64, 64).t(), False),
        (lambda: torch.randn(32, 4, 8, 8).to(memory_format=torch.channels_last), False),
        (lambda: torch.randn(64, 128)[:, ::2], False),
        (lambda: torch.tensor(1.0), False),
        (lambda: torch.empty(0, 128), False),
    ],
    ids=[
        "matrix", "bf16", "fp16", "one row", "convolution", "small", "short rows", "vector", "column", "float64",
        "transposed", "channels_last", "every second", "scalar", "empty",
    ],
)  # fmt: skip
def test_which_parameters_are_kept_so(make, is_blocked, level):
    p = torch.nn.Parameter(make())
    optimizer = optimizer_of("adamw_win", [p], level)
    go_on([p], optimizer, 0, steps=2)
    state = optimizer.state[p]
    assert ("exp_avg_sq_scale" in state) == is_blocked
    if not is_blocked:
        right = torch.float64 if p.dtype == torch.float64 else torch.float32
        assert set(types(state).values()) <= {right, torch.float32} and state["exp_avg"].dtype == right


@EVERY_LEVEL
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_near_to_those_of_float32(name, level):
    """To a twentieth of the way; every name, with weight decay, over blocks of all sizes."""
    runs = []
    for state in ("float32", level):
        parameters = model()
        optimizer = optimizer_of(name, parameters, state, weight_decay=0.01)
        go_on(parameters, optimizer, 0, steps=10)
        runs.append([p.detach() - q.detach() for p, q in zip(parameters, model())])
    for theirs, ours in zip(*runs):
        assert (ours - theirs).square().mean().sqrt() <= 0.05 * theirs.square().mean().sqrt()


# options -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("value", ["4bit", "bf16", "Compact", "", None, 8, True, ["8bit"]], ids=repr)
def test_another_level_is_refused(cls, value):
    p = torch.nn.Parameter(torch.zeros(2))
    right = re.escape(f"state must be one of 'float32', 'compact', '8bit'; got {value!r}")
    with pytest.raises(ValueError, match=right):
        cls([p], state=value)
    with pytest.raises(ValueError, match=right):
        cls([{"params": [p], "state": value}])


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("value", [None, 1, "yes"], ids=repr)
def test_another_keep_rounding_is_refused(cls, value):
    with pytest.raises(ValueError, match=f"keep_rounding must be True or False; got {value!r}"):
        cls([torch.nn.Parameter(torch.zeros(2))], keep_rounding=value)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_takes_both(cls):
    for level in LEVELS:
        p = torch.nn.Parameter(torch.randn(64, 64))
        optimizer = cls([p], state=level, keep_rounding=False, backend="eager")
        assert optimizer.param_groups[0]["state"] == level
        go_on([p], optimizer, 0, steps=1)


def test_each_group_has_its_own():
    parameters = model(shapes=[(64, 64)] * 3)
    groups = [{"params": [p], "state": level} for p, level in zip(parameters, LEVELS)]
    optimizer = optimizer_of("adamw_win2", groups, "float32")
    go_on(parameters, optimizer, 0)
    for p, level in zip(parameters, LEVELS):
        state = {name: tensor for name, tensor in optimizer.state[p].items() if name != "step"}
        assert types(state) == TYPES[level]
        alone = torch.nn.Parameter(model(shapes=[(64, 64)] * 3)[LEVELS.index(level)].detach())
        generator, other = torch.Generator().manual_seed(0), optimizer_of("adamw_win2", [alone], level)
        for _ in range(5):
            grads = [torch.randn(64, 64, generator=generator) for _ in LEVELS]
            alone.grad = grads[LEVELS.index(level)]
            other.step()
        assert torch.equal(alone, p)


def test_a_group_that_is_added_is_of_the_optimizers_level():
    parameters = model(shapes=[(64, 64)] * 2)
    optimizer = optimizer_of("adamw_win", parameters[:1], "compact")
    optimizer.add_param_group({"params": [parameters[1]]})
    go_on(parameters, optimizer, 0, steps=1)
    assert [optimizer.state[p]["exp_avg"].dtype for p in parameters] == [torch.bfloat16] * 2


@pytest.mark.parametrize("after", LEVELS)
@pytest.mark.parametrize("before", LEVELS)
@pytest.mark.parametrize("name", ["adamw_win2", "adan_win", "sgd_win", "lamb_win"])
def test_a_level_that_is_changed_in_a_run_is_taken_at_the_next_step(name, before, after):
    parameters, others = model(), model()
    changed, stays = (optimizer_of(name, each, before) for each in (parameters, others))
    go_on(parameters, changed, 0)
    go_on(others, stays, 0)
    changed.param_groups[0]["state"] = after
    go_on(parameters, changed, 1)
    go_on(others, stays, 1)
    fresh = model()
    there = optimizer_of(name, fresh, after)
    go_on(fresh, there, 0, steps=1)
    for p, q, r in zip(parameters, others, fresh):
        assert types(changed.state[p]) == types(there.state[r])
        assert (p - q).square().mean().sqrt() <= 0.3 * LR
        assert changed.state[p]["step"] == 10


# what is done to gradients and state ---------------------------------------------------------------------------------


@EVERY_LEVEL
@pytest.mark.parametrize("name", ["adamw_win2", "adan", "lamb_win", "sgd_win", "adal"])
def test_a_step_that_is_left_out_changes_no_bit(name, level):
    parameters = model()
    optimizer = optimizer_of(name, parameters, level, skip_nonfinite=True)
    go_on(parameters, optimizer, 0)
    before = everything(parameters, optimizer)
    parameters[0].grad[3, 7] = torch.nan
    optimizer.step()
    assert same(everything(parameters, optimizer), before) and int(optimizer.skipped_steps) == 1
    go_on(parameters, optimizer, 1)
    assert all(tensor.isfinite().all() for tensor in everything(parameters, optimizer))


@pytest.mark.parametrize("level", BLOCKED)
def test_a_nan_spoils_its_block_of_the_weights_and_no_other(level):
    parameters = model()
    optimizer = optimizer_of("adamw_win", parameters, level)
    go_on(parameters, optimizer, 0)
    parameters[0].grad[3, 7] = torch.nan
    optimizer.step()
    go_on(parameters, optimizer, 1, steps=3)
    lost = torch.zeros(40, 200, dtype=torch.bool)
    lost[3, :128] = True
    assert torch.equal(parameters[0].isnan(), lost)
    assert not any(p.isnan().any() for p in parameters[1:])


@EVERY_LEVEL
def test_a_gradient_whose_square_is_infinite_is_no_leap(level):
    """Its element stands still, as in float32; what divides its first moment is not the largest number."""
    p = torch.nn.Parameter(torch.zeros(64, 128))
    optimizer = optimizer_of("adam_l2", [p], level)
    for t in range(5):
        p.grad = torch.ones(64, 128)
        p.grad[0, 0] = 1e25 if t == 1 else 1.0
        optimizer.step()
    assert p.isfinite().all() and p.abs().max() < 10 * LR


@EVERY_LEVEL
@pytest.mark.parametrize("name", ["adan", "adan_win", "adan_win2"])
def test_adan_that_restarts(name, level):
    """The step after is as the first of a run that begins with these weights; the distances stay."""
    parameters = model()
    optimizer = optimizer_of(name, parameters, level, restart_every=4)
    go_on(parameters, optimizer, 0, steps=4)
    others = model()
    with torch.no_grad():
        for p, q in zip(parameters, others):
            q.copy_(p)
    fresh = optimizer_of(name, others, level)
    go_on(others, fresh, 5, steps=1)  # its state, with the distances of the first
    for p, q in zip(parameters, others):
        for key, tensor in fresh.state[q].items():
            tensor.zero_() if "gap" not in key else tensor.copy_(optimizer.state[p][key])
        with torch.no_grad():
            q.copy_(p)
    go_on(parameters, optimizer, 1, steps=1)
    go_on(others, fresh, 1, steps=1)
    assert same(everything(parameters, optimizer), everything(others, fresh))
    assert all(state["step"] == 1 for state in optimizer.state.values())


def test_flat_pieces_are_kept_in_float32_and_that_is_said_once():
    p = torch.nn.Parameter(torch.randn(8192))
    p._is_flat_param = True  # as FSDP1 marks its own
    optimizer = AdamW([p], state="compact")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(2):
            p.grad = torch.ones_like(p)
            optimizer.step()
    (warning,) = told
    assert "state='compact' has no effect on flat pieces" in str(warning.message)
    assert optimizer.state[p]["exp_avg"].dtype == torch.float32
