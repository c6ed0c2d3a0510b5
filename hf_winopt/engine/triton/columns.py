"""What stands in which column of the three tables that the kernels read.

Columns are numbers that a kernel knows when it is compiled. (Kernels say `col.Z`: a global of their own module Triton
would compare with what it was at every launch.) A parameter has a row of addresses and lengths, a parameter
group a row of hyper-parameters, and each parameter a row of coefficients, called as in `rules.coefficients`.
"""

from __future__ import annotations

import triton.language as tl

# a parameter's row (int64), built once ------------------------------------------------------------------------------

Z = tl.constexpr(0)  # addresses of the parameter
STEP = tl.constexpr(1)  # ... and of its step count, float32
NUMEL = tl.constexpr(2)
GROUP = tl.constexpr(3)  # which row of hyper-parameters
TRANSFORMED = tl.constexpr(4)  # 1 where the transform applies to a parameter of its shape
ADAPTED = tl.constexpr(5)  # 1 where the trust ratio is taken
FIRST_SPAN = tl.constexpr(6)  # where its partial sums begin, and how many there are
SPANS = tl.constexpr(7)
STATE = tl.constexpr(8)  # addresses of its state, in the order of `rule.state_names`, at most six
SCALE = tl.constexpr(14)  # ... and of the scales, in the same order
BLOCKS = tl.constexpr(20)  # how many blocks it has, and each of its rows; 0 where it is not in blocks
BLOCKS_OF_ROW = tl.constexpr(21)
QUARTERS = tl.constexpr(22)  # elements of a row of it: the fours, and what is left over
LEFT_OVER = tl.constexpr(23)
ROW = tl.constexpr(24)

# a group's row (float64), read anew each step ------------------------------------------------------------------------

LR = tl.constexpr(0)
LR_AT = tl.constexpr(1)  # the address of an lr that lives on the device (as int64 bits), else 0
WEIGHT_DECAY = tl.constexpr(2)
LOG2_GAMMA = tl.constexpr(3)
LOG2_BETA = tl.constexpr(4)  # of up to three betas; beta itself follows
BETA = tl.constexpr(7)
EPS = tl.constexpr(10)
MOMENTUM = tl.constexpr(11)
DAMPENING = tl.constexpr(12)
R1 = tl.constexpr(13)
R2 = tl.constexpr(14)
AGR_STEPS = tl.constexpr(15)  # infinite where AGR is never stopped
RESTART_EVERY = tl.constexpr(16)
MAX_GRAD_NORM = tl.constexpr(17)
SIGN = tl.constexpr(18)
INVERSE_SQRT_LR = tl.constexpr(19)
BEARS = tl.constexpr(20)  # the largest norm of all gradients with which a step is taken
MOMENTUM_DECAY = tl.constexpr(21)
HYPER = tl.constexpr(22)

# a parameter's coefficients (float32; float64 for float64 parameters), computed on the device each step --------------

LIVE = tl.constexpr(0)  # 0 where nothing is stepped: no gradient, or an overflow
TRANSFORMING = tl.constexpr(1)  # 1 where the transform is on at this step
GRAD = tl.constexpr(2)
LAM = tl.constexpr(3)  # "l2" or "in_update"
M = tl.constexpr(4)
V = tl.constexpr(5)
D = tl.constexpr(6)
N = tl.constexpr(7)
DIFFERENCE = tl.constexpr(8)
AHEAD = tl.constexpr(9)
D_IN_U = tl.constexpr(10)
ROOT = tl.constexpr(11)
FLOOR = tl.constexpr(12)
MU = tl.constexpr(13)
FRESH = tl.constexpr(14)
MINUS_LR = tl.constexpr(15)
KEEP = tl.constexpr(16)
SHRINK = tl.constexpr(17)
WIN = tl.constexpr(18)
WIN_STEP = tl.constexpr(19)
WIN2 = tl.constexpr(20)
WIN2_STEP = tl.constexpr(21)
WIN2_Y = tl.constexpr(22)
PHI = tl.constexpr(23)
M_IN_U = tl.constexpr(24)
RESPONSE_X_GAP = tl.constexpr(25)  # of steps that another optimizer takes
RESPONSE_Y_GAP = tl.constexpr(26)
COEFFICIENTS = tl.constexpr(27)
