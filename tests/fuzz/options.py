"""Values of every option: such as people train with, the whole of what is allowed, and what must be refused.

Which of the three a value is stands here and is not asked of the package.
"""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from hf_winopt import OPTIMIZERS

NAMES = st.sampled_from(list(OPTIMIZERS))
BELOW_1 = math.nextafter(1, 0)
LEAST = math.nextafter(0, 1)
LARGEST = torch.finfo(torch.float32).max

# such as people train with: all numbers stay finite on gradients of up to 1e3, in float16 too ------------------------

SANE: dict[str, st.SearchStrategy[Any]] = {
    "lr": st.sampled_from([0.0, 1e-5, 1e-3, 1e-2]) | st.floats(0, 0.01),
    "eps": st.floats(1e-10, 1e-2),
    "weight_decay": st.just(0.0) | st.floats(0, 0.5),
    "weight_decay_gamma": st.floats(0.5, 1),
    "momentum": st.floats(0, 0.99),
    "dampening": st.floats(0, 0.99),
    "momentum_decay": st.floats(0, 1),
    "nesterov": st.booleans(),
    "reckless_steps": st.tuples(st.floats(0.1, 10), st.floats(0.1, 20)),
    "agr_steps": st.none() | st.integers(0, 3),
    "always_adapt": st.booleans(),
    "inverse_sqrt_lr": st.booleans(),
    "restart_every": st.integers(0, 3),
    "max_grad_norm": st.sampled_from([0.0, 0.1, 10.0]),
    "maximize": st.booleans(),
    "state": st.sampled_from(["float32", "compact", "8bit"]),
    "keep_rounding": st.booleans(),
    "skip_nonfinite": st.booleans(),
    "backend": st.sampled_from(["auto", "eager"]),
    "foreach": st.sampled_from([None, True, False]),
    "fused": st.sampled_from([None, True, False]),
    "capturable": st.booleans(),
    "differentiable": st.just(False),
}
# A second moment that forgets faster than the first makes steps without bound; who trains so has asked for it.
SANE_BETAS = {
    2: st.tuples(st.floats(0, 0.95), st.floats(0.95, 0.999)),
    3: st.tuples(st.floats(0, 0.95), st.floats(0, 0.95), st.floats(0.95, 0.999)),
}

# the whole of what is allowed, its borders above all; float arithmetic may then overflow, which is no error -----------

_OF_NUMPY = [np.float16(0.5), np.float32(0.5), np.float64(0.9), np.int64(1)]
_AMOUNT = st.sampled_from(
    [0, 1, 0.0, -0.0, LEAST, 1e-300, 1e-45, 1e-38, 1.0, 1e30, 10**38, LARGEST, *_OF_NUMPY]
) | st.floats(0, LARGEST)
_SHARE = st.sampled_from([0, 0.0, -0.0, LEAST, 1e-45, 0.5, BELOW_1, *_OF_NUMPY[:-1]]) | st.floats(0, BELOW_1)
_RATIO = st.sampled_from([1, 2, LEAST, 1e-300, 1e-38, 1e30, LARGEST, *_OF_NUMPY]) | st.floats(LEAST, LARGEST)
_RATE_TENSORS = st.builds(
    lambda value, dtype, shape: torch.full(shape, value, dtype=dtype),
    st.sampled_from([0, 1, 2]),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64]),
    st.sampled_from([(), (1,), (1, 1)]),
)
_COUNT = st.sampled_from([0, 1, 2, 10**9, 10**30, 10**400, np.int64(1), np.uint8(3)])

ALLOWED: dict[str, st.SearchStrategy[Any]] = SANE | {
    "lr": _AMOUNT | _RATE_TENSORS,
    "eps": _AMOUNT,
    "weight_decay": _AMOUNT,
    "weight_decay_gamma": st.sampled_from([1, 1.0, LEAST, 1e-300, BELOW_1]) | st.floats(LEAST, 1),
    "momentum": _SHARE,
    "dampening": _SHARE,
    "momentum_decay": _AMOUNT,
    "reckless_steps": st.tuples(_RATIO, _RATIO) | st.lists(_RATIO, min_size=2, max_size=2),
    "agr_steps": st.none() | _COUNT,
    "restart_every": _COUNT,
    "max_grad_norm": _AMOUNT,
}
ALLOWED_BETAS = {n: st.tuples(*[_SHARE] * n) | st.lists(_SHARE, min_size=n, max_size=n) for n in (2, 3)}

# what must be refused ------------------------------------------------------------------------------------------------

# numpy's numbers are numbers, its arrays and its truth values are none
_NO_NUMBER = [
    None, "", "0.1", b"1", math.nan, math.inf, -math.inf, True, False, 1j, [0.1], (), {}, {0.1}, object(), 10**400,
    -(10**400), 1e39, -1e39, math.nextafter(LARGEST, math.inf), np.float32(math.nan), np.float64(1e39),
    np.bool_(True), np.array(0.1), np.array([0.1, 0.2]), Decimal("0.1"), Fraction(1, 10),
]  # fmt: skip
_TENSORS = [torch.tensor(0.5), torch.tensor([0.5, 0.5])]
_NEGATIVE = [-1, -1.0, -LEAST, -1e-8]
_NOT_BELOW_1 = [1, 1.0, math.nextafter(1, 2), 2]
_NO_FLAG = [None, 0, 1, 0.0, "", "yes", "True", [], [True], np.int64(1), np.array([True, False]), torch.tensor(True)]
_NO_COUNT = [-1, 0.0, 2.5, "1", True, math.nan, [1], np.float32(1), np.array([1, 2]), torch.tensor(1)]
_NO_NAME = ["", "Win", "won", 0, True, 1.0, [], ["win"], {"win"}, b"win", np.array(["win", "l2"]), torch.ones(2)]

_BAD_AMOUNT = [*_NO_NUMBER, *_TENSORS, *_NEGATIVE]
_BAD_SHARE = [*_BAD_AMOUNT, *_NOT_BELOW_1]
_BAD_RATE = [
    *_NO_NUMBER, *_NEGATIVE, torch.tensor([0.5, 0.5]), torch.tensor([]), torch.tensor(math.nan), torch.tensor(-1.0),
    torch.tensor(math.inf), torch.tensor(1e39, dtype=torch.float64), torch.tensor(1j), torch.tensor(True),
    torch.ones((), device="meta"),
]  # fmt: skip


def _wrong_sequences(length: int, good: float, bad: list[Any]) -> st.SearchStrategy[Any]:
    whole = [good] * length
    no_sequence = [None, good, "0.9", {*whole}, {"a": good}, np.array(whole), torch.tensor(whole), iter(whole)]
    other_lengths = [tuple(whole[:n]) for n in range(length)] + [(*whole, good), [*whole, good, good]]
    one_bad = st.builds(
        lambda value, place: (*whole[:place], value, *whole[place + 1 :]),
        st.sampled_from(bad),
        st.integers(0, length - 1),
    )
    return st.sampled_from([*no_sequence, *other_lengths]) | one_bad


BAD: dict[str, st.SearchStrategy[Any]] = {
    "lr": st.sampled_from(_BAD_RATE),
    "eps": st.sampled_from(_BAD_AMOUNT),
    "weight_decay": st.sampled_from(_BAD_AMOUNT),
    "weight_decay_gamma": st.sampled_from([*_BAD_AMOUNT, 0, 0.0, -0.0, math.nextafter(1, 2), 2]),
    "momentum": st.sampled_from(_BAD_SHARE),
    "dampening": st.sampled_from(_BAD_SHARE),
    "momentum_decay": st.sampled_from(_BAD_AMOUNT),
    "nesterov": st.sampled_from(_NO_FLAG),
    "acceleration": st.sampled_from([None, "none ", *_NO_NAME]),
    "reckless_steps": _wrong_sequences(2, 2.0, [*_BAD_AMOUNT, 0, 0.0]),
    "decay": st.sampled_from(["none", *_NO_NAME]),
    "agr": st.sampled_from(_NO_FLAG),
    "agr_steps": st.sampled_from(_NO_COUNT),
    "always_adapt": st.sampled_from(_NO_FLAG),
    "inverse_sqrt_lr": st.sampled_from(_NO_FLAG),
    "restart_every": st.sampled_from([None, *_NO_COUNT]),
    "max_grad_norm": st.sampled_from(_BAD_AMOUNT),
    "maximize": st.sampled_from(_NO_FLAG),
    "state": st.sampled_from([None, "int8", "8 bit", *_NO_NAME]),
    "keep_rounding": st.sampled_from(_NO_FLAG),
    "skip_nonfinite": st.sampled_from(_NO_FLAG),
    "backend": st.sampled_from([None, "cuda", *_NO_NAME]),
    "foreach": st.sampled_from(_NO_FLAG[1:]),
    "fused": st.sampled_from(_NO_FLAG[1:]),
    "capturable": st.sampled_from(_NO_FLAG),
    "differentiable": st.sampled_from([True, np.bool_(True), *_NO_FLAG]),
}
BAD_BETAS = {n: _wrong_sequences(n, 0.9, _BAD_SHARE) for n in (2, 3)}


def numbers_of_betas(name: str) -> int:
    return len(OPTIMIZERS[name].options["betas"])


def _values(name: str, option: str, kind: dict[str, Any], of_betas: dict[int, Any]) -> st.SearchStrategy[Any]:
    return of_betas[numbers_of_betas(name)] if option == "betas" else kind[option]


@st.composite
def option_of_a_name(draw: st.DrawFn) -> tuple[str, str]:
    """An option, all equally often, and the name of an optimizer that has it."""
    options = sorted({option for row in OPTIMIZERS.values() for option in row.options})
    option = draw(st.sampled_from(options))
    return option, draw(st.sampled_from([name for name, row in OPTIMIZERS.items() if option in row.options]))


def sane(name: str, option: str) -> st.SearchStrategy[Any]:
    """Values of an option of this optimizer with which training stays finite."""
    return _values(name, option, SANE, SANE_BETAS)


def bad(name: str, option: str) -> st.SearchStrategy[Any]:
    """Values of an option of this optimizer that must be refused."""
    return _values(name, option, BAD, BAD_BETAS)


def free(name: str) -> list[str]:
    """The options that a name leaves open and that go with all others, each with a value of its own."""
    row = OPTIMIZERS[name]
    closed = {*row.fixed, "acceleration", "decay", "agr"} | (set() if row.fixed.get("agr") else {"agr_steps"})
    return [option for option in row.options if option not in closed]


@st.composite
def chosen(draw: st.DrawFn, name: str, among: str = "sane", of_a_group: bool = False) -> dict[str, Any]:
    """Values of some options of an optimizer.

    Args:
        among: "sane" or "allowed".
        of_a_group: without `backend`, which belongs to the whole optimizer.
    """
    open_ones = [option for option in free(name) if not (of_a_group and option == "backend")]
    options = draw(st.lists(st.sampled_from(open_ones), unique=True, max_size=6))
    kind, betas = (SANE, SANE_BETAS) if among == "sane" else (ALLOWED, ALLOWED_BETAS)
    values = {option: draw(_values(name, option, kind, betas)) for option in options}
    if values.get("nesterov"):
        values |= {"momentum": 0.9, "dampening": 0.0}
    return values
