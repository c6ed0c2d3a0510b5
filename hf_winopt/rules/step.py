"""The step of a rule, over tensors as they are stored: decoded, the formulas of docs/math.md in order, and encoded.

`gradient` (section 0), the transform (1), the moments and the direction (2), `move` (3). Everything is a pure function
of tensors; engines decide over which pieces of which tensors it runs.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from .arithmetic import Coefficient, Coefficients, add_scaled, is_known, rounded, scaled, stored
from .encodings import FLOAT32, REMAINDER, dither
from .moments import State
from .movement import conservative
from .rule import ROUNDING, Rule, scale_of
from .transforms import OFF, transformed

_VALUE_OF = {ROUNDING: "x_gap"}

NEW: State = {}
"""No destination: results are new tensors."""


def gradient(c: Coefficients, z: Tensor, g: Tensor) -> Tensor:
    """Section 0: scale, sign, clipping and l2 decay; the gradient that `sum|g|` is taken of."""
    g = scaled(g, c["grad"])
    return _with_decay(c.get("l2", 0.0), g, z)


def _with_decay(lam: Coefficient, tensor: Tensor, z: Tensor) -> Tensor:
    return tensor if is_known(lam, 0.0) else add_scaled(tensor, z, lam)


def _direction(rule: Rule, c: Coefficients, z: Tensor, h: Tensor, s: Tensor, moments: State) -> Tensor:
    r = rule.moments_kind.direction(c, h if rule.moments_kind.ahead == "h" else s, moments)
    return _with_decay(c.get("in_update", 0.0), r, z)


# as it is stored -----------------------------------------------------------------------------------------------------


def read(rule: Rule, state: State) -> State:
    """The values of the state, by name; what is stored as it is, itself. What rounding took is a distance, too."""
    return {
        _VALUE_OF.get(name, name): encoding.decode(state[name], state.get(scale_of(name)))
        for name, encoding in rule.encodings.items()
        if name in state
    }


def _write(rule: Rule, c: Coefficients, values: State, out: State) -> State:
    """Values as they are stored, codes and scales, in the tensors of `out` where it has them."""
    new: State = {}
    for key, value in values.items():
        name = _stored_as(rule, key)
        encoding = rule.encodings[name]
        r = _dither(c, value.device) if encoding.dithers else None
        new[name], scales = encoding.encode(value, r)
        if scales is not None:
            new[scale_of(name)] = scales
    return {name: stored(value, out.get(name)) for name, value in new.items()}


def _stored_as(rule: Rule, key: str) -> str:
    return ROUNDING if key == "x_gap" and rule.remainder else key


def _dither(c: Coefficients, device: torch.device) -> Tensor:
    """Of each place in a block; an engine may have it already."""
    given = c.get("dither")
    return given if isinstance(given, Tensor) else dither(c["phi"], device)


def _in_place(rule: Rule, state: State, out: State) -> State:
    """Where new values can go: what was decoded is nobody else's, and what is stored as it is, where `out` says.

    Without an `out` nowhere: a compiler finds such places itself, and older ones do not bear what writes over a decoded
    tensor.
    """
    if not out:
        return {}
    return {
        key: value for key, value in state.items() if rule.encodings[_stored_as(rule, key)] is not FLOAT32 or key in out
    }


# the step ------------------------------------------------------------------------------------------------------------


def _advance(rule: Rule, c: Coefficients, z: Tensor, g: Tensor, state: State, out: State) -> tuple[State, Tensor]:
    """`(moments, r)`, of values."""
    h, s = transformed(rule.transform, gradient(c, z, g), c.get("abs_sum", OFF))
    moments = rule.moments_kind.advance(c, h, s, state, out)
    return moments, _direction(rule, c, z, h, s, moments)


def advance(rule: Rule, c: Coefficients, z: Tensor, g: Tensor, state: State, out: State = NEW) -> tuple[State, Tensor]:
    """Sections 0 to 2 but for the trust ratio: the new moments, and the direction `r` that those give as stored.

    A second pass, which reads them again, finds the same direction as the norm was taken of. Arguments as `apply`.
    """
    values = read(rule, state)
    moments, r = _advance(rule, c, z, g, values, _in_place(rule, values, out))
    new = _write(rule, c, moments, out)
    return new, direction_again(rule, c, z, g, new) if rule.is_coded else r


def direction_again(rule: Rule, c: Coefficients, z: Tensor, g: Tensor, state: State) -> Tensor:
    """The direction of `advance` from moments already advanced: recomputing it is cheaper than storing it (LAMB)."""
    h = s = g
    if rule.moments_kind.ahead:
        h, s = transformed(rule.transform, gradient(c, z, g), c.get("abs_sum", OFF))
    return _direction(rule, c, z, h, s, read(rule, state))


def w_of(rule: Rule, z: Tensor, state: State) -> Tensor:
    """What the trust ratio takes the norm of: the conservative sequence."""
    return conservative(z, read(rule, _of(state, rule.gaps[:1])))


def _of(state: State, names: Iterable[str]) -> State:
    """Of a state what is stored under these names, with scales."""
    return {kept: state[kept] for name in names for kept in (name, scale_of(name)) if kept in state}


def move(
    rule: Rule,
    c: Coefficients,
    z: Tensor,
    r: Tensor,
    state: State,
    out: State = NEW,
    home: torch.dtype | None = None,
) -> tuple[Tensor, State]:
    """Section 3, after the trust ratio where there is one: the new `z` and the new distances; arguments as `apply`."""
    return _move(rule, c, z, r, read(rule, _of(state, rule.gaps)), out, home or z.dtype)


def _move(
    rule: Rule, c: Coefficients, z: Tensor, r: Tensor, state: State, out: State, home: torch.dtype
) -> tuple[Tensor, State]:
    u = scaled(r, c["ratio"]) if rule.trust_ratio else r
    into = _in_place(rule, {key: state[key] for key in ("x_gap", "y_gap") if key in state}, out)
    x, gaps = rule.movement.move(c, z, u, state, {**into, **({"z": out["z"]} if "z" in out else {})})
    return placed(rule, c, x, gaps, out, home)


def placed(rule: Rule, c: Coefficients, x: Tensor, gaps: State, out: State, home: torch.dtype) -> tuple[Tensor, State]:
    """The new `z`, as far ahead of `x` as the distance says once it is stored: `z`, and not `x`, takes its rounding.

    What is stored finely enough takes the rounding of `z` in turn: `z` less it is `x` again.
    """
    if not rule.gaps:
        return stored(x, out.get("z")), {}
    if rule.encodings[rule.gaps[0]] in (FLOAT32, REMAINDER):
        ahead = x + gaps["x_gap"] if "x_gap" in gaps else x
        z = rounded(ahead, home)
        new = _write(rule, c, {**gaps, "x_gap": z - x}, out)
    else:
        new = _write(rule, c, gaps, out)
        z = x + read(rule, _of(new, ("x_gap",)))["x_gap"]
    return stored(z, out.get("z")), new


def apply(
    rule: Rule,
    c: Coefficients,
    z: Tensor,
    g: Tensor,
    state: State,
    out: State = NEW,
    home: torch.dtype | None = None,
) -> tuple[Tensor, State]:
    """One whole step over tensors of one shape.

    Args:
        c: `coefficients(...)`, and with a transform `abs_sum`, with a trust ratio
            `ratio`: the two numbers that belong to a whole parameter.
        z: the parameter; `g` its gradient as autograd left it; `state` the tensors of `rule.kept`. Under a rule with
            blocks all have them as their last dimension, and the scales one number there.
        out: the tensors that take the results, "z" and the names of the state; they may be the arguments themselves.
            What is not named there is not written to (Adan's new `prev_grad` is then the gradient itself).
        home: the type that the new `z` is stored in; None for its own.

    Returns:
        The new `z` and the new state. Nothing is modified but what `out` names.
    """
    values = read(rule, state)
    moments, r = _advance(rule, c, z, g, values, _in_place(rule, values, out))
    z, distances = _move(rule, c, z, r, values, out, home or z.dtype)
    return z, {**_write(rule, c, moments, out), **distances}
