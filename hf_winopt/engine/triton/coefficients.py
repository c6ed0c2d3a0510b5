"""The twin of `rules.coefficients`, on the device: there the step counts live, and an overflow is known only there.

One program counts one parameter a step on and writes the numbers of that step. They are computed in float64, as on the
host: `1 - beta^t` in float32 would lose digits in the first steps.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl

from ...rules import encodings, moments
from . import columns as col
from .arithmetic import added, number

GOLDEN = tl.constexpr(encodings.GOLDEN)
LOG2_DECAY_OF_NADAM = tl.constexpr(math.log2(moments.DECAY_OF_NADAM))
LONG_OF_NADAM = tl.constexpr(moments.LONG_OF_NADAM)


@triton.jit
def put(c, name: tl.constexpr, value):
    tl.store(c + name, value.to(c.dtype.element_ty))


@triton.jit
def power(log2_base, exponent):
    """`base ** exponent` in float64; the base may be 0, its logarithm then is minus infinity."""
    return tl.where(exponent == 0, 1.0, tl.exp2(exponent * log2_base))


@triton.jit
def adam_coefficients(c, hyper, t):
    bc1 = 1 - power(number(hyper, col.LOG2_BETA), t)
    bc2 = 1 - power(number(hyper, col.LOG2_BETA + 1), t)
    put(c, col.M, 1 - number(hyper, col.BETA))
    put(c, col.V, 1 - number(hyper, col.BETA + 1))
    put(c, col.ROOT, bc1 / tl.sqrt(bc2))
    put(c, col.FLOOR, number(hyper, col.EPS) * bc1)


@triton.jit
def mu(hyper, t):
    """NAdam's `mu_t`, of one step or of many."""
    halving = tl.exp2(t * (number(hyper, col.MOMENTUM_DECAY) * LOG2_DECAY_OF_NADAM))
    return number(hyper, col.BETA) * (1 - 0.5 * halving)


@triton.jit
def times(a, b):
    return a * b


@triton.jit
def product_of_mu(hyper, t):
    """`M_t = mu_1 ... mu_t`, all factors at once."""
    k = tl.arange(1, LONG_OF_NADAM + 1).to(tl.float64)
    product = tl.reduce(tl.where(k <= t, mu(hyper, k), 1.0), 0, times)
    rest = tl.where(t > LONG_OF_NADAM, t - LONG_OF_NADAM, 0.0)
    return product * power(number(hyper, col.LOG2_BETA), rest)


@triton.jit
def nadam_coefficients(c, hyper, t):
    product = product_of_mu(hyper, t)
    next_mu = mu(hyper, t + 1)
    of_m = next_mu / (1 - product * next_mu)
    of_h = (1 - mu(hyper, t)) / (1 - product)
    bc2 = 1 - power(number(hyper, col.LOG2_BETA + 1), t)
    put(c, col.M, 1 - number(hyper, col.BETA))
    put(c, col.V, 1 - number(hyper, col.BETA + 1))
    put(c, col.M_IN_U, of_m / of_h)
    put(c, col.ROOT, 1 / (of_h * tl.sqrt(bc2)))
    put(c, col.FLOOR, number(hyper, col.EPS) / of_h)


@triton.jit
def adan_coefficients(c, hyper, t):
    bc1 = 1 - power(number(hyper, col.LOG2_BETA), t)
    bc2 = 1 - power(number(hyper, col.LOG2_BETA + 1), t)
    bc3 = 1 - power(number(hyper, col.LOG2_BETA + 2), t)
    beta2 = number(hyper, col.BETA + 1)
    put(c, col.M, 1 - number(hyper, col.BETA))
    put(c, col.D, 1 - beta2)
    put(c, col.N, 1 - number(hyper, col.BETA + 2))
    put(c, col.DIFFERENCE, tl.where(t == 1, 0.0, 1.0))  # at the first step h_prev = h
    put(c, col.AHEAD, beta2)
    put(c, col.D_IN_U, beta2 * bc1 / bc2)
    put(c, col.ROOT, bc1 / tl.sqrt(bc3))
    put(c, col.FLOOR, number(hyper, col.EPS) * bc1)


@triton.jit
def momentum_coefficients(c, hyper, t):
    put(c, col.MU, number(hyper, col.MOMENTUM))
    put(c, col.FRESH, tl.where(t == 1, 1.0, 1.0 - number(hyper, col.DAMPENING)))


@triton.jit
def win_coefficients(c, hyper, eta_lam):
    r1 = number(hyper, col.R1)
    share = 1 / (1 + r1 + r1 * eta_lam)
    put(c, col.WIN, share)
    put(c, col.WIN_STEP, share * (r1 - 1))


@triton.jit
def win2_coefficients(c, hyper, eta_lam):
    r1 = number(hyper, col.R1)
    r2 = number(hyper, col.R2)
    share = 1 / (1 + r2 + r2 / r1 + r2 * eta_lam)
    put(c, col.WIN2, share)
    put(c, col.WIN2_STEP, share * (r2 - 1))
    put(c, col.WIN2_Y, share * (r2 / r1))


@triton.jit
def grad_factor(hyper, all_g, grad_scale, NORMED: tl.constexpr, SCALED: tl.constexpr):
    """What section 0 multiplies the gradient by: sign, unscaling and clipping together."""
    factor = number(hyper, col.SIGN)
    if SCALED:
        factor = factor / tl.load(grad_scale).to(tl.float64)
    if NORMED:
        limit = number(hyper, col.MAX_GRAD_NORM)
        share = limit / (all_g + 1e-6)
        factor = tl.where((limit == 0) | (share >= 1), factor, factor * share)  # a norm that is no number stays one
    return factor


@triton.jit(
    do_not_specialize=["first", "hyper_at", "n_squares"],
    do_not_specialize_on_alignment=["squares", "norm", "grad_scale", "found_inf"],
)
def coefficients(
    table, upload, first, hyper_at, coefs, squares, n_squares, norm, grad_scale, found_inf,
    TRANSFORM: tl.constexpr, MOMENTS: tl.constexpr, MOVEMENT: tl.constexpr, DECAY: tl.constexpr,
    NORMED: tl.constexpr, SKIPS: tl.constexpr, SCALED: tl.constexpr, STOPPABLE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Count parameter `program_id(0)` a step on and write its coefficients; not without a gradient or on overflow.

    Args:
        table, upload, coefs: the parameters' rows; what the step sent; where the coefficients go.
        first, hyper_at: where in the upload the gradients' addresses begin (0: no gradient), and the groups' rows.
        squares, n_squares, norm: partial sums of all gradients' squares, and where their norm goes (NORMED); nothing
            is stepped where it is more than is borne, or no number (SKIPS).
        grad_scale: what the loss was multiplied by (SCALED).
        found_inf: not 0 where a gradient overflowed (STOPPABLE).
    """
    i = tl.program_id(0)
    row = table + i * col.ROW
    c = coefs + i * col.COEFFICIENTS
    hyper = (upload + hyper_at + number(row, col.GROUP) * col.HYPER).to(tl.pointer_type(tl.float64), bitcast=True)
    live = tl.where(tl.load(upload + first + i) != 0, 1.0, 0.0).to(tl.float64)
    if STOPPABLE:
        live = tl.where(tl.load(found_inf) == 0, live, 0.0)
    all_g = tl.full([], 0.0, tl.float64)
    if NORMED:
        all_g = tl.sqrt(added(squares, 0, n_squares, BLOCK))
        if i == 0:
            tl.store(norm, all_g)
    if SKIPS:
        live = tl.where(all_g <= number(hyper, col.BEARS), live, 0.0)  # what is no number is not less either
    put(c, col.LIVE, live)

    step = number(row, col.STEP).to(tl.pointer_type(tl.float32))
    done = tl.load(step).to(tl.float64)
    every = number(hyper, col.RESTART_EVERY)
    t = tl.where((every > 0) & (done >= every), 1.0, done + 1).to(tl.float32)  # which counts to 2^24: no step is later
    tl.store(step, tl.where(live != 0, t, done.to(tl.float32)))
    t = t.to(tl.float64)

    lr = number(hyper, col.LR)
    lr_at = number(hyper, col.LR_AT).to(tl.int64, bitcast=True)
    if lr_at != 0:
        lr = tl.load(lr_at.to(tl.pointer_type(tl.float32))).to(tl.float64)
    lr = tl.where(number(hyper, col.INVERSE_SQRT_LR) != 0, lr / tl.sqrt(t), lr)
    lam = number(hyper, col.WEIGHT_DECAY) * power(number(hyper, col.LOG2_GAMMA), t - 1)

    put(c, col.GRAD, grad_factor(hyper, all_g, grad_scale, NORMED, SCALED))
    transforming = number(row, col.TRANSFORMED).to(tl.float64)
    if TRANSFORM == "agr":
        transforming = tl.where(t <= number(hyper, col.AGR_STEPS), transforming, 0.0)
    put(c, col.TRANSFORMING, transforming)

    if MOMENTS == "adam":
        adam_coefficients(c, hyper, t)
    if MOMENTS == "nadam":
        nadam_coefficients(c, hyper, t)
    if MOMENTS == "adan":
        adan_coefficients(c, hyper, t)
    if (MOMENTS == "momentum") | (MOMENTS == "nesterov"):
        momentum_coefficients(c, hyper, t)

    around = t * tl.full([], GOLDEN, tl.float64)
    put(c, col.PHI, tl.floor((around - tl.floor(around)) * 2.0**20) * 2.0**-20)

    put(c, col.LAM, lam)
    if (DECAY == "l2") | (DECAY == "in_update"):
        lam = tl.zeros_like(lam)  # it has had its place already
    put(c, col.MINUS_LR, -lr)
    put(c, col.KEEP, 1 - lr * lam)
    put(c, col.SHRINK, 1 / (1 + lr * lam))
    if (MOVEMENT == "win") | (MOVEMENT == "win2"):
        win_coefficients(c, hyper, lr * lam)
    if MOVEMENT == "win2":
        win2_coefficients(c, hyper, lr * lam)
