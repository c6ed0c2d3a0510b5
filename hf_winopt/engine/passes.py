"""What is compiled: the passes of one step over a parameter, or over a part of one, composed of the rules and of sums.

A pass is given `z`, `g` and state, both first widened to the type of arithmetic, and `home`, where the new `z` goes. It
writes what it can in place. What is of two bytes it returns on an accelerator, behind its results, and the caller
copies it home; on a CPU such tensors are stepped by loops of our own (`cpp`), in blocks and in place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..rules import (
    FLOAT32,
    OFF,
    Coefficients,
    Rule,
    State,
    advance,
    apply,
    arrive,
    direction_again,
    gradient,
    leave,
    move,
    trust_ratio,
    w_of,
)
from .norms import needs_sum, widest

Pass = Callable[..., list[Tensor]]


def whole_step(rule: Rule, c: Coefficients, home: Tensor, z: Tensor, g: Tensor, state: State) -> list[Tensor]:
    """Everything at once, where no number of the direction is needed."""
    new_z, new_state = apply(rule, _with_sum(rule, c, z, g), z, g, state, home=home.dtype)
    return _stored({"z": home, **state}, {"z": new_z, **new_state})


def to_ratio(
    rule: Rule, c: Coefficients, home: Tensor, z: Tensor, g: Tensor, state: State, kept: Tensor
) -> list[Tensor]:
    """LAMB's first pass: the moments advance and the direction goes to `kept`; returns the trust ratio."""
    moments, r = advance(rule, _with_sum(rule, c, z, g), z, g, state)
    w = w_of(rule, z, state)
    kept.copy_(r)
    ratio = trust_ratio(_sum(w.square()).sqrt(), _sum(r.square()).sqrt()).to(z.dtype)
    return [ratio, *_stored(state, moments)]


def from_ratio(
    rule: Rule, c: Coefficients, home: Tensor, z: Tensor, g: Tensor, state: State, kept: Tensor, ratio: Tensor
) -> list[Tensor]:
    """LAMB's second pass: the parameter moves along the direction that was kept."""
    new_z, distances = move(rule, {**c, "ratio": ratio}, z, kept, state, home=home.dtype)
    return _stored({"z": home, **state}, {"z": new_z, **distances})


# over a part of a parameter, its sums being known or yet to be added up --------------------------------------------


def part_of_abs_sum(rule: Rule, c: Coefficients, home: Tensor, z: Tensor, g: Tensor, state: State) -> list[Tensor]:
    """Returns the part's share of `sum|g|`."""
    return [_sum(gradient(c, z, g).abs())]


def part_of_step(
    rule: Rule, c: Coefficients, home: Tensor, z: Tensor, g: Tensor, state: State, *abs_sum: Tensor
) -> list[Tensor]:
    """`whole_step` of a part."""
    return whole_step(rule, _known(c, abs_sum), home, z, g, state)


def part_to_norms(
    rule: Rule, c: Coefficients, home: Tensor, z: Tensor, g: Tensor, state: State, *abs_sum: Tensor
) -> list[Tensor]:
    """LAMB's first pass: the moments advance; returns the part's sums of squares of `w` and of `r`."""
    moments, r = advance(rule, _known(c, abs_sum), z, g, state)
    sums = [_sum(w_of(rule, z, state).square()), _sum(r.square())]
    return [*sums, *_stored(state, moments)]


def part_from_ratio(
    rule: Rule, c: Coefficients, home: Tensor, z: Tensor, g: Tensor, state: State, ratio: Tensor, *abs_sum: Tensor
) -> list[Tensor]:
    """LAMB's second pass: the direction once more, and the part moves along it."""
    r = direction_again(rule, _known(c, abs_sum), z, g, state)
    new_z, distances = move(rule, {**c, "ratio": ratio}, z, r, state, home=home.dtype)
    return _stored({"z": home, **state}, {"z": new_z, **distances})


# around another optimizer's step -------------------------------------------------------------------------------------


def before_base(
    rule: Rule, c: Coefficients, home: Tensor, z: Tensor, g: Tensor, state: State, *waits: Tensor
) -> list[Tensor]:
    """The parameter becomes `x`; what waits goes to `waits`, and to the distances that are not in codes."""
    x, waiting = leave(rule, c, z, state)
    places = waiting_places(rule, state, waits)
    return _stored({"z": home, **places}, {"z": x, **waiting})


def after_base(
    rule: Rule, c: Coefficients, home: Tensor, z: Tensor, g: Tensor, state: State, *waits: Tensor
) -> list[Tensor]:
    """The parameter, which another optimizer has left at `x'`, becomes the new `z`."""
    new_z, distances = arrive(rule, c, z, waiting_places(rule, state, waits), home=home.dtype)
    return _stored({"z": home, **state}, {"z": new_z, **distances})


def waits_apart(rule: Rule) -> tuple[str, ...]:
    """The distances in codes: what waits for them is in tensors of their own, in this order."""
    return tuple(name for name in rule.gaps if rule.encoding(name) is not FLOAT32)


def waiting_places(rule: Rule, state: State, waits: Sequence[Tensor]) -> State:
    """Where what waits lies, by the names of the distances as values (`x_gap`, `y_gap`)."""
    places = {**state, **dict(zip(waits_apart(rule), waits))}
    return {value: places[name] for value, name in zip(rule.movement.state_names, rule.gaps)}


def written(one_pass: Pass, rule: Rule) -> tuple[str, ...]:
    """What a pass writes or returns, in order."""
    moments = tuple(name for name in rule.kept if name.removesuffix("_scale") in rule.moments_kind.state_names)
    distances = tuple(name for name in rule.kept if name not in moments)
    return {
        whole_step: ("z", *moments, *distances),
        part_of_step: ("z", *moments, *distances),
        to_ratio: moments,
        part_to_norms: moments,
        from_ratio: ("z", *distances),
        part_from_ratio: ("z", *distances),
        part_of_abs_sum: (),
        before_base: ("z", *(name for name in rule.gaps if name not in waits_apart(rule))),
        after_base: ("z", *distances),
    }[one_pass]


def is_returned(home: Tensor) -> bool:
    """Whether a pass returns what belongs there, and does not write it."""
    return home.dtype.itemsize == 2 and home.device.type != "cpu"


def _known(c: Coefficients, abs_sum: tuple[Tensor, ...]) -> Coefficients:
    return {**c, **({"abs_sum": abs_sum[0]} if abs_sum else {})}


def _with_sum(rule: Rule, c: Coefficients, z: Tensor, g: Tensor) -> Coefficients:
    """The coefficients, with `sum|g|` where it is yet to be found; an "agr" of 0 among them turns AGR off."""
    if not needs_sum(rule, c):
        return c
    abs_sum = _sum(gradient(c, z, g).abs()).to(z.dtype)
    if isinstance(agr := c.get("agr"), Tensor):
        abs_sum = torch.where(agr == 0, OFF, abs_sum)
    return {**c, "abs_sum": abs_sum}


def _stored(homes: State, new: State) -> list[Tensor]:
    """Write what is not returned; returns the rest in the order of `written`."""
    returned = []
    for name, home in homes.items():
        if name in new and is_returned(home):
            returned.append(new[name].to(home.dtype))
        elif name in new:
            home.copy_(new[name])
    return returned


def _sum(terms: Tensor) -> Tensor:
    return terms.sum(dtype=widest(terms.device))
