"""Steps of two engines side by side, whose codes are to be the same, but where last bits differ."""

from __future__ import annotations

import torch

from hf_winopt.optim import LAMB
from hf_winopt.optim.restated import values

ROWS = ((32, 200), (40, 128), (16, 8, 3, 24), (32, 147), (3, 1400))
"""A block and a part, one block, many dimensions; lengths that are no multiples of 4; few rows."""

SMALL = ((64,), (3, 5))
BF16, F16 = torch.bfloat16, torch.float16
FLIPPED = 1e-3
"""The largest share of codes that may be the next ones."""


DISTANCES = ("x_gap", "y_gap", "rounding")


def gradient(p, t, place):
    generator = torch.Generator().manual_seed(100 * t + place)
    return (0.1 * torch.randn(p.shape, generator=generator)).to(p)


def start(make, shapes, dtype, device, **options):
    torch.manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(shape).to(device, dtype)) for shape in shapes]
    return params, make(params, lr=1e-2, **options)


def train(params, optimizer, first, last):
    for t in range(first, last):
        for place, p in enumerate(params):
            p.grad = gradient(p, t, place)
        optimizer.step()


def both(make, shapes, dtype, device, steps=3, **options):
    """Parameters and optimizer of either engine, stepped side by side."""
    ours, theirs = (start(make, shapes, dtype, device, backend=backend, **options) for backend in ("triton", "eager"))
    step_both(ours, theirs, 0, steps)
    return ours, theirs


def step_both(ours, theirs, first, last):
    """Each step from the same state: the next code in one step is another direction in the next."""
    for t in range(first, last):
        train(*ours, t, t + 1)
        train(*theirs, t, t + 1)
        assert_same(ours, theirs)
        for p, q in zip(ours[0], theirs[0]):
            q.detach().copy_(p.detach())
            for name, tensor in ours[1].state[p].items():
                theirs[1].state[q][name].copy_(tensor)


def assert_same(ours, theirs):
    """Of codes of one tensor a few may be the next ones; what is near 0 has codes close by."""
    (params, optimizer), (others, eager) = ours, theirs
    assert optimizer._ready.plan.stepped == set(range(len(params)))
    flipped = []
    for p, q in zip(params, others):
        state, expected = optimizer.state[p], eager.state[q]
        assert list(state) == list(expected)
        z, largest = q.detach(), q.detach().abs().max().item()
        near(
            p.detach(),
            z,
            2.0**-21 * largest,
            {torch.float32: 2.0**-11, BF16: 2.0**-7, F16: 2.0**-10}[p.dtype] * largest,
        )
        for name, theirs in expected.items():
            assert (state[name].dtype, state[name].shape) == (theirs.dtype, theirs.shape), name
            # distances are as exact as what they lie between, and LAMB's second pass goes by codes
            of_gap = 2.0**-16 if isinstance(optimizer, LAMB) else 2.0**-19
            noise = of_gap * largest if name in DISTANCES else 1e-6 * values(expected, name).abs().max().item()
            if name.endswith("_scale") or name == "step":
                torch.testing.assert_close(state[name], theirs, rtol=1e-4, atol=0)
            elif f"{name}_scale" in expected or theirs.dtype == BF16:
                flipped.append(flips(state, expected, name, noise))
            elif name in ("x_gap", "rounding"):  # where l2 decay cancels a gradient of 16 bits nothing of it is exact
                near(p.detach() - values(state, name), z - values(expected, name), 4 * noise, 1e-2)
            else:
                near(state[name], theirs, 4 * noise)
    assert not flipped or torch.cat(flipped).double().mean() <= FLIPPED


def near(ours, theirs, tolerance, of_few=0.0):
    """More than the tolerance in a few places, where a code is the next one."""
    differ = (ours.double() - theirs.double()).abs()
    assert (differ > tolerance).double().mean() <= FLIPPED
    assert differ.max() <= max(tolerance, of_few)


def flips(state, expected, name, noise):
    """Which codes are others: the next ones, or those of numbers that are not further from each other than noise."""
    ours, theirs = (
        each[name].view(torch.int16) if each[name].itemsize == 2 else each[name] for each in (state, expected)
    )
    apart = (ours.int() - theirs.int()).abs().flatten()
    differ = (values(state, name) - values(expected, name)).abs().flatten()
    assert ((apart <= 1) | (differ <= noise)).all(), name
    return apart > 0
