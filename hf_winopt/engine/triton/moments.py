"""The twins of `rules.moments`: the moments, the direction `u`, and the trust ratio."""

from __future__ import annotations

import triton
import triton.language as tl

from . import columns as col
from .arithmetic import divided, number, square_root, toward, toward_square


@triton.jit
def quotient(numerator, second_moment, c):
    """`(numerator / bc1) / (sqrt(second_moment / bc2) + eps)`, both sides multiplied by bc1."""
    return divided(numerator, square_root(second_moment) * number(c, col.ROOT) + number(c, col.FLOOR))


@triton.jit
def adam_advance(c, h, s, exp_avg, exp_avg_sq):
    exp_avg = toward(exp_avg, h, number(c, col.M))  # m <- b1 m + (1-b1) h
    exp_avg_sq = toward_square(exp_avg_sq, s, number(c, col.V))  # v <- b2 v + (1-b2) s^2
    return exp_avg, exp_avg_sq


@triton.jit
def adam_direction(c, exp_avg, exp_avg_sq):
    return quotient(exp_avg, exp_avg_sq, c)


@triton.jit
def nadam_direction(c, h, exp_avg, exp_avg_sq):
    return quotient(h + number(c, col.M_IN_U) * exp_avg, exp_avg_sq, c)


@triton.jit
def adan_advance(c, h, exp_avg, exp_avg_diff, exp_avg_sq, prev_grad):
    further = number(c, col.DIFFERENCE) != 0  # not the first step, and not the first after a restart
    exp_avg = tl.where(further, exp_avg, 0.0)
    exp_avg_diff = tl.where(further, exp_avg_diff, 0.0)
    exp_avg_sq = tl.where(further, exp_avg_sq, 0.0)
    d_t = tl.where(further, h - prev_grad, 0.0)
    n_root = h + number(c, col.AHEAD) * d_t
    exp_avg = toward(exp_avg, h, number(c, col.M))  # m <- b1 m + (1-b1) h
    exp_avg_diff = toward(exp_avg_diff, d_t, number(c, col.D))  # d <- b2 d + (1-b2) d_t
    exp_avg_sq = toward_square(exp_avg_sq, n_root, number(c, col.N))  # n <- b3 n + (1-b3) (h + b2 d_t)^2
    return exp_avg, exp_avg_diff, exp_avg_sq, h


@triton.jit
def adan_direction(c, exp_avg, exp_avg_diff, exp_avg_sq):
    return quotient(exp_avg + number(c, col.D_IN_U) * exp_avg_diff, exp_avg_sq, c)


@triton.jit
def momentum_advance(c, h, momentum_buffer):
    return number(c, col.MU) * momentum_buffer + number(c, col.FRESH) * h


@triton.jit
def nesterov_direction(c, s, momentum_buffer):
    return s + number(c, col.MU) * momentum_buffer


@triton.jit
def trust_ratio(w_squares, r_squares):
    """LAMB: `||w|| / ||r||`, 1 where either norm is 0; of the sums of squares, float64."""
    nothing = (w_squares == 0) | (r_squares == 0)
    return tl.where(nothing, 1.0, tl.sqrt(w_squares) / tl.sqrt(tl.where(nothing, 1.0, r_squares)))
