"""Functions that the Triton kernels inline: gates, candidate activations, and the place of a lane in memory.

All are built from exp, so that the interpreter can run them too. Nothing overflows: the argument of each exponential is
at most 0. Numbers are in the dtype of the carry, float32 or float64; NaN comes out as NaN.
"""

# Triton gives the types when it compiles.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

import triton
import triton.language as tl

# Constants that specialise a kernel.
LINEAR, GRU, LSTM = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
IDENTITY, TANH, G = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)


@triton.jit
def sigmoids(x):
    """(sigmoid(x), sigmoid(-x)), both to full relative precision."""
    u = tl.exp(-tl.abs(x))
    near = 1 / (1 + u)
    far = u * near
    return tl.where(x >= 0, near, far), tl.where(x >= 0, far, near)


@triton.jit
def shares(f, i):
    """(i', f', sigmoid(-f), sigmoid(-i)) of the normalised gates, also where both gates vanish.

    sigmoid(f) = exp(-deep_f) / (1 + u), so f' and i' are as exp(-deep_f) * (1 + w) to exp(-deep_i) * (1 + u).
    """
    u, w = tl.exp(-tl.abs(f)), tl.exp(-tl.abs(i))
    more = tl.where(i > 0, 0, -i) - tl.where(f > 0, 0, -f)  # deep_i - deep_f
    e = tl.exp(-tl.abs(more))
    write = tl.where(more > 0, e, 1) * (1 + u)
    keep = tl.where(more > 0, 1, e) * (1 + w)
    whole = 1 / (write + keep)
    return write * whole, keep * whole, tl.where(f > 0, u, 1) / (1 + u), tl.where(i > 0, w, 1) / (1 + w)


@triton.jit
def tanh(x):
    """A continued fraction near 0, where the exponential form would lose the relative precision."""
    y = x * x
    top = x * (135135 + y * (17325 + y * (378 + y)))
    bottom = 135135 + y * (62370 + y * (3150 + y * 28))
    u = tl.exp(-2 * tl.abs(x))
    near = y < 0.25
    return tl.where(near, top, tl.where(x < 0, u - 1, 1 - u)) / tl.where(near, bottom, 1 + u)


@triton.jit
def activate(x, ACTIVATION: tl.constexpr):
    """c(x)."""
    if ACTIVATION == TANH:
        c = tanh(x)
    elif ACTIVATION == G:
        c = tl.where(x >= 0, x + 0.5, sigmoids(x)[0])
    else:
        c = x
    return c


@triton.jit
def activate_and_slope(x, ACTIVATION: tl.constexpr):
    """(c(x), dc/dx)."""
    if ACTIVATION == TANH:
        c = tanh(x)
        slope = 1 - c * c
    elif ACTIVATION == G:
        below, above = sigmoids(x)
        c = tl.where(x >= 0, x + 0.5, below)
        slope = tl.where(x >= 0, 1, below * above)
    else:
        c = x
        slope = tl.full(x.shape, 1, x.dtype)
    return c, slope


@triton.jit
def place(D, BLOCK: tl.constexpr, ONE_ROW: tl.constexpr):
    """(lane, row, column) of a program: lane = row * D + column. ONE_ROW: D is a multiple of BLOCK, row is a scalar.

    `multiple_of` helps Triton 3.6, which does not infer it through the remainder and would load 4 bytes at a time.
    """
    first = tl.program_id(0).to(tl.int64) * BLOCK
    within = tl.arange(0, BLOCK)
    lane = first + within
    if ONE_ROW:
        row = first // D
        column = tl.multiple_of(first % D, BLOCK) + within
    else:
        row = lane // D
        column = lane % D
    return lane, row, column
