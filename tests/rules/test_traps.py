"""What an encoding of an optimizer's state must not do, each met in others: ours do not, and what does is found out.

Every check is a function of the encodings; it is passed by ours at both levels, and failed by the one described.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from hf_winopt.rules import Rule, apply, coefficients, scale_of
from hf_winopt.rules.encodings import BF16, S8, S8_DITHERED, U8, U16, Encoding
from hf_winopt.rules.step import read
from tests.rules.mutants import DEAF, DYNAMIC, LINEAR, ONE_SCALE, SQUARE_ROOT, UNDITHERED, half_scaled

BLOCKS = 8
LEVELS = pytest.mark.parametrize("level", ["compact", "8bit"])


def rule_with(level: str = "8bit", moments: str = "adam", **encodings: Encoding) -> Rule:
    """A rule of that level whose named tensors are stored otherwise."""
    rule = Rule(moments=moments, state=level)
    vars(rule)["encodings"] = {**rule.encodings, **encodings}  # where the cached property keeps it
    return rule


class Run:
    """Steps of a rule over blocks that lie at 0 before each of them, with a rate of 1: what comes out is `-u`."""

    def __init__(self, rule: Rule, **hyper: Any) -> None:
        betas = (0.98, 0.92, 0.99) if rule.moments == "adan" else (0.9, 0.999)
        self.hyper = {"lr": 1.0, "betas": betas, "eps": 1e-8, "weight_decay": 0.0, **hyper}
        self.rule, self.t = rule, 0
        self.state: dict[str, Tensor] = {}
        for name, encoding in rule.encodings.items():
            self.state[name] = torch.zeros(BLOCKS, 128, dtype=encoding.dtype)
            if encoding.is_blocked:
                self.state[scale_of(name)] = torch.zeros(BLOCKS, 1)

    def step(self, g: Tensor) -> Tensor:
        self.t += 1
        c = coefficients(self.rule, self.hyper, self.t)
        z, self.state = apply(self.rule, c, torch.zeros(BLOCKS, 128), g, self.state)
        return -z

    def values(self) -> dict[str, Tensor]:
        return read(self.rule, self.state)

    def over(self, grads: Iterable[Tensor]) -> list[Tensor]:
        return [self.step(g) for g in grads]


def random_gradients(steps: int, seed: int = 0, scale: float = 1.0) -> Iterator[Tensor]:
    g = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        yield scale * torch.randn(BLOCKS, 128, generator=g)


def fails(check: Callable[..., None], rule: Rule) -> None:
    with pytest.raises(AssertionError):
        check(rule)


# 1: bf16 for v -------------------------------------------------------------------------------------------------------


def forgets(rule: Rule) -> None:
    """1,500 steps without a gradient leave 0.999^1500 of v, in blocks where one element has one all the time."""
    run = Run(rule)
    run.over([torch.ones(BLOCKS, 128)] * 20)
    before = run.values()["exp_avg_sq"].clone()
    silent = torch.zeros(BLOCKS, 128)
    silent[:, 7] = 1.0
    run.over([silent] * 1500)
    share = run.values()["exp_avg_sq"] / before / 0.999**1500
    share[:, 7] = 1.0
    assert share.min() > 1 / 1.3 and share.max() < 1.3


@LEVELS
def test_the_second_moment_forgets(level):
    forgets(rule_with(level))


def test_in_bf16_it_does_not():
    """A step takes away 0.1 %, and half a unit in the last place is 0.2 % and more."""
    fails(forgets, rule_with("compact", exp_avg_sq=BF16))


# 2: a v of 0 ---------------------------------------------------------------------------------------------------------


def longest_of_neighbours(rule: Rule) -> float:
    """Of a gradient that was once 10^4 times as large as all others."""
    run, longest = Run(rule), 0.0
    for t, g in enumerate(random_gradients(300)):
        if t == 20:
            g[:, 5] = 1e4
        u = run.step(g).abs()
        u[:, 5] = 0.0
        longest = max(longest, u.max().item())
    return longest


def is_bounded(rule: Rule) -> None:
    assert longest_of_neighbours(rule) < 7.3  # (1 - b1) / sqrt((1 - b2) (1 - b1^2 / b2)): Adam's own bound


@LEVELS
def test_neighbours_of_an_outlier_do_not_leap(level):
    is_bounded(rule_with(level))


@pytest.mark.parametrize("encoding", [LINEAR, DYNAMIC], ids=["linear", "dynamic"])
def test_with_a_map_that_has_a_zero_they_do(encoding):
    rule = rule_with(exp_avg_sq=encoding)
    fails(is_bounded, rule)
    assert longest_of_neighbours(rule) > 1000


# 3: a square root for v ----------------------------------------------------------------------------------------------


def go_on_beside_an_outlier(rule: Rule) -> None:
    """After one gradient of 10^6 the others' steps are as long as without encoding."""
    lengths = []
    for each in (rule, Rule()):
        run, total = Run(each), 0.0
        for t, g in enumerate(random_gradients(600)):
            if t == 20:
                g[:, 5] = 1e6
            u = run.step(g).abs()
            total += u[:, 6:].mean().item() if t >= 300 else 0.0
        lengths.append(total)
    assert 0.5 < lengths[0] / lengths[1] < 2


@LEVELS
def test_neighbours_of_an_outlier_go_on(level):
    go_on_beside_an_outlier(rule_with(level))


def test_by_a_square_root_they_stand_still():
    fails(go_on_beside_an_outlier, rule_with(exp_avg_sq=SQUARE_ROOT))
    run = Run(rule_with(exp_avg_sq=SQUARE_ROOT))
    for t, g in enumerate(random_gradients(300)):
        if t == 20:
            g[:, 5] = 1e6
        u = run.step(g)
    assert u[:, 6:].abs().max() < 1e-2


# 4: v in 8 bits without dither ----------------------------------------------------------------------------------------


def comes_back(rule: Rule) -> None:
    """What was silent for 1,200 steps, beside what was not, moves as far as without encoding."""
    lengths = []
    for each in (rule, Rule()):
        run, total = Run(each), 0.0
        for t, g in enumerate(random_gradients(1600)):
            if 300 <= t < 1500:
                g[:, 8:] = 0.0
            u = run.step(g).abs()
            total += u[:, 8:].mean().item() if t >= 1500 else 0.0
        lengths.append(total)
    assert 0.95 < lengths[0] / lengths[1] < 1.05


@LEVELS
def test_what_was_silent_comes_back(level):
    comes_back(rule_with(level))


def test_without_dither_it_does_not():
    fails(comes_back, rule_with(exp_avg_sq=UNDITHERED))


# 5: a first moment that gathers many roundings ----------------------------------------------------------------------


def is_reached(rule: Rule, within: float = 0.2) -> None:
    """A gradient that comes and stays becomes the mean of Adan's first moment, beside one that was always there."""
    run = Run(rule)
    g = torch.zeros(BLOCKS, 128)
    g[:, 7] = 1.0
    run.over([g] * 300)
    g = torch.linspace(-0.95, 0.95, 128).expand(BLOCKS, 128).clone()
    g[:, 7] = 1.0
    run.over([g] * 400)
    total = torch.zeros(BLOCKS, 128)
    for _ in range(200):
        run.step(g)
        total += run.values()["exp_avg"] / 200
    assert (total / g - 1).abs()[g.abs() > 0.05].max() < within


@LEVELS
def test_adans_first_moment_is_that_of_its_gradients(level):
    is_reached(rule_with(level, "adan"))


def test_dithered_it_is_to_a_fiftieth():
    is_reached(rule_with("8bit", "adan"), within=0.02)


def test_in_8_bits_to_the_nearest_it_is_not():
    """A step takes it a fiftieth of the way, and half a code is more: it stops half way."""
    fails(is_reached, rule_with("8bit", "adan", exp_avg=S8))


# 6: a NaN ------------------------------------------------------------------------------------------------------------


def one_block_is_lost(rule: Rule) -> None:
    run = Run(rule)
    grads = list(random_gradients(6))
    grads[3][2, 40] = torch.nan
    *_, u = run.over(grads)
    assert u[2].isnan().all() and not u[[0, 1, *range(3, BLOCKS)]].isnan().any()
    assert run.values()["exp_avg_sq"].isnan().sum() == 128


@LEVELS
def test_a_nan_spoils_its_block_and_no_other(level):
    one_block_is_lost(rule_with(level))


@pytest.mark.parametrize("encoding", [ONE_SCALE, DEAF], ids=["one scale for all", "a NaN becomes a number"])
def test_other_ways_spoil_more_or_hide_it(encoding):
    fails(one_block_is_lost, rule_with("8bit", exp_avg_sq=encoding))


# 7: scales in half precision ----------------------------------------------------------------------------------------


def bears_small_gradients(rule: Rule) -> None:
    """Gradients of 1e-7 move by what gradients of 1 do."""
    small = Run(rule, eps=1e-30).over(random_gradients(50, scale=1e-7))
    usual = Run(rule, eps=1e-30).over(random_gradients(50))
    for u, v in zip(small, usual):
        torch.testing.assert_close(u.abs().mean(), v.abs().mean(), rtol=0.02, atol=0)


@LEVELS
def test_small_gradients_are_borne(level):
    bears_small_gradients(rule_with(level))


@pytest.mark.parametrize(
    "name, level, encoding",
    [("exp_avg", "8bit", S8_DITHERED), ("exp_avg_sq", "8bit", U8), ("exp_avg_sq", "compact", U16)],
    ids=["exp_avg", "exp_avg_sq", "exp_avg_sq compact"],
)
def test_with_scales_in_half_precision_they_are_not(name, level, encoding):
    fails(bears_small_gradients, rule_with(level, **{name: half_scaled(encoding)}))
