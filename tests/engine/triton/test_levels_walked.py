"""Parameters in blocks: of all lengths of rows, wherever they lie, beside others, and when a step is no usual one."""

from __future__ import annotations

import itertools

import pytest
import torch

from hf_winopt import create_optimizer
from hf_winopt.optim import LAMB, AdamW, Adan
from hf_winopt.optim.restated import values
from tests.engine.triton.levels import BF16, ROWS, SMALL, assert_same, both, gradient, start, step_both, train

pytestmark = pytest.mark.usefixtures("large_blocks")


@pytest.mark.parametrize("level", ["compact", "8bit"])
def test_rows_of_half_a_block_and_parts_of_chunks(level, device):
    both(AdamW, [(9000, 64), (70, 128), (33, 384)], torch.float32, device, 2, acceleration="win", state=level)


@pytest.mark.parametrize("options", [{"max_grad_norm": 0.5}, {"maximize": True}, {"skip_nonfinite": True}], ids=str)
def test_clipped_and_turned_around(options, device):
    both(AdamW, ROWS + SMALL, torch.float32, device, acceleration="win2", state="8bit", **options)


def test_a_restart(device):
    both(Adan, ROWS + SMALL, torch.float32, device, 4, state="8bit", restart_every=2)


def test_a_step_that_is_skipped_changes_nothing(device):
    for options in ({"skip_nonfinite": True}, {}):
        params, optimizer = start(LAMB, ROWS + SMALL, BF16, device, backend="triton", state="8bit", **options)
        train(params, optimizer, 0, 2)
        kept = [t.clone() for p in params for t in (p.detach(), *optimizer.state[p].values())]
        for place, p in enumerate(params):
            p.grad = gradient(p, 3, place)
        if options:
            params[1].grad[0, 0] = torch.inf
        else:
            optimizer.grad_scale, optimizer.found_inf = (torch.tensor(x, device=device) for x in (8.0, 1.0))
        optimizer.step()
        now = [t for p in params for t in (p.detach(), *optimizer.state[p].values())]
        assert all(map(torch.equal, kept, now))


def test_a_scaled_gradient(device):
    found = []
    for backend, scale in (("triton", 8.0), ("eager", 8.0)):
        params, optimizer = start(Adan, ROWS + SMALL, torch.float32, device, backend=backend, state="8bit")
        optimizer.grad_scale = torch.tensor(scale, device=device)
        optimizer.found_inf = torch.tensor(0.0, device=device)
        train(params, optimizer, 0, 3)
        found.append((params, optimizer))
    assert_same(*found)


@pytest.mark.parametrize("name", ["exp_avg", "exp_avg_scale", "exp_avg_sq", "x_gap"])
def test_codes_at_addresses_that_are_no_multiple_of_16(name, device):
    """Whole chunks too, which are read wide elsewhere."""
    ours, theirs = both(AdamW, [(64, 256), (32, 200)], torch.float32, device, 1, acceleration="win", state="8bit")
    params, optimizer = ours
    for p in params:
        tensor = optimizer.state[p][name]
        moved = torch.cat([tensor.new_zeros(1), tensor.flatten()])[1:].view(tensor.shape)
        assert moved.data_ptr() % 16
        optimizer.state[p][name] = moved
    step_both(ours, theirs, 1, 3)
    assert optimizer._ready.plan._devices[0]._batches[0].aligned is False


def test_scales_that_are_laid_out_otherwise(device):
    ours, theirs = both(AdamW, [(32, 400)], torch.float32, device, 1, state="8bit")
    (p,), optimizer = ours
    optimizer.state[p]["exp_avg_scale"] = optimizer.state[p]["exp_avg_scale"].t().contiguous().t()
    step_both(ours, theirs, 1, 3)


@pytest.mark.parametrize("level", ["compact", "8bit"])
def test_a_gradient_that_is_no_number_spoils_its_block_and_no_other(level, device):
    for place, block in ((5, slice(0, 128)), (140, slice(128, 200))):
        for backend in ("triton", "eager"):
            (p,), optimizer = start(AdamW, [(32, 200)], torch.float32, device, backend=backend, state=level)
            for t in range(3):
                p.grad = gradient(p, t, 0)
                if t == 0:
                    p.grad[7, place] = torch.nan
                optimizer.step()
            expected = torch.zeros(32, 200, dtype=torch.bool)
            expected[7, block] = True
            assert torch.equal(p.detach().isnan().cpu(), expected), backend
            assert torch.equal(values(optimizer.state[p], "exp_avg_sq").isnan().cpu(), expected)


def test_a_gradient_too_large_to_be_squared(device):
    """The second moment is infinite, and its element stands still, as in float32."""
    params, optimizer = start(AdamW, [(32, 200)], torch.float32, device, backend="triton", state="8bit")
    for t in range(3):
        params[0].grad = gradient(params[0], t, 0)
        params[0].grad[3, 3] = 1e30
        optimizer.step()
    assert params[0].isfinite().all() and not values(optimizer.state[params[0]], "exp_avg_sq").isnan().any()


def batches(optimizer):
    return optimizer._ready.plan._devices[0]._batches


def test_biases_go_along_with_matrices(device):
    for make, batches_of_two_levels in ((AdamW, 2), (LAMB, 2)):
        for levels, expected in (
            (("8bit", "8bit"), 1),
            (("8bit", "float32"), 1),
            (("8bit", "compact"), batches_of_two_levels),
        ):
            params = [torch.nn.Parameter(torch.randn(shape).to(device)) for shape in ((64, 64), (64,), (64, 64), (64,))]
            groups = [{"params": params[:2], "state": levels[0]}, {"params": params[2:], "state": levels[1]}]
            optimizer = make(groups, weight_decay=0.1, backend="triton")
            train(params, optimizer, 0, 1)
            assert len(batches(optimizer)) == expected, (make, levels)
            assert sum(batch.size for batch in batches(optimizer)) == 4


def test_matrices_without_a_trust_ratio_are_stepped_in_one_pass(device):
    """In two their direction would be that of what is stored."""
    found = []
    for backend in ("triton", "eager"):
        params, _ = start(LAMB, ((64, 64), (64,), (64, 64), (64,)), torch.float32, device)
        groups = [{"params": params[:2], "weight_decay": 0.1}, {"params": params[2:], "weight_decay": 0.0}]
        optimizer = LAMB(groups, lr=1e-2, state="8bit", backend=backend)
        train(params, optimizer, 0, 3)
        found.append((params, optimizer))
    assert_same(*found)
    assert [batch.rule.trust_ratio for batch in batches(found[0][1])] == [True, False]


def test_the_same_inputs_give_the_same_bits(device):
    runs = []
    for _ in range(2):
        params, optimizer = start(LAMB, ROWS + SMALL, BF16, device, backend="triton", state="8bit", acceleration="win2")
        train(params, optimizer, 0, 2)
        runs.append([t for p in params for t in (p.detach(), *optimizer.state[p].values())])
    assert all(itertools.starmap(torch.equal, zip(*runs)))


def test_a_checkpoint_goes_from_one_engine_to_the_other(device):
    """Codes and scales are the same things to both."""
    ours, theirs = both(AdamW, ROWS + SMALL, torch.float32, device, 2, acceleration="win", state="8bit")
    for (params, optimizer), (others, other) in ((ours, theirs), (theirs, ours)):
        with torch.no_grad():
            for p, q in zip(others, params):
                p.copy_(q)
        other.load_state_dict(optimizer.state_dict())
        train(params, optimizer, 2, 3)
        train(others, other, 2, 3)
        assert_same(ours, theirs)


def test_blocks_of_zeros_stay_zeros(device):
    p = torch.nn.Parameter(torch.ones(64, 64, device=device))
    optimizer = create_optimizer("adamw_win2", [p], backend="triton", state="8bit", weight_decay=0.0)
    p.grad = torch.zeros_like(p)
    optimizer.step()
    assert not any(optimizer.state[p][name].any() for name in optimizer.state[p] if name != "step")
