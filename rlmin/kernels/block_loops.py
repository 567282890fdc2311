"""The numba loops between the matrix products of a residual block: layer norm, causal convolution, SiLU, and their
backward passes, each in one walk over memory.

`cpu_math.py` describes the table that a loop reads; the first lines of the loop name its arrays.
Arrays without time are [N, D], where N is the number of rows of the table. `numbers` holds (eps, 1 / D). Gradients of
weights are summed into `sums` [parts, ..., D], each part by the thread that took its rows.

An array has one name (see `load`) throughout a loop: `normalise` writes to FIRST, the small pieces below add up in
THIRD, which the large ones read, and `normalise_backward` writes to FOURTH, FIFTH and SIXTH.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from rlmin.scan.cpu_loops import ONE
from rlmin.scan.cpu_math import (
    FIFTH,
    FIRST,
    FOURTH,
    INPUT,
    SECOND,
    SIXTH,
    THIRD,
    array,
    c_loop,
    exp,
    five_arrays,
    inline,
    load,
    row,
    starts,
    store,
    sum_loop,
    take,
    widest,
)
from rlmin.scan.cpu_threads import Loop

_INTEGER = np.int64(1)


@sum_loop
def normalise(x: Any, gamma: Any, beta: Any, y: Any, stats: Any, D: Any, numbers: Any, one: Any) -> None:
    """y = gamma (x - mean) / sqrt(var + eps) + beta; stats = (mean, 1 / sqrt(var + eps))."""
    eps, share = numbers[0], numbers[1]
    total = one - one
    for d in range(D):
        total += load(x, d, THIRD)
    mean = total * share
    total = one - one
    for d in range(D):
        centred = load(x, d, THIRD) - mean
        total += centred * centred
    scale = one / np.sqrt(total * share + eps)
    for d in range(D):
        store(y, d, (load(x, d, THIRD) - mean) * scale * load(gamma, d, INPUT) + load(beta, d, INPUT), FIRST)
    stats[0], stats[1] = mean, scale


@sum_loop
def normalise_backward(
    x: Any, gamma: Any, stats: Any, dy: Any, dx: Any, dgamma: Any, dbeta: Any, D: Any, numbers: Any, one: Any
) -> None:
    """Write to dx the gradient through `normalise`."""
    share = numbers[1]
    mean, scale = stats[0], stats[1]
    total = along = one - one
    for d in range(D):
        hat, slope = (load(x, d, THIRD) - mean) * scale, load(dy, d, THIRD)
        dhat = slope * load(gamma, d, INPUT)
        total += dhat
        along += dhat * hat
        store(dgamma, d, load(dgamma, d, FIFTH) + slope * hat, FIFTH)
        store(dbeta, d, load(dbeta, d, SIXTH) + slope, SIXTH)
    total, along = total * share, along * share
    for d in range(D):
        hat, dhat = (load(x, d, THIRD) - mean) * scale, load(dy, d, THIRD) * load(gamma, d, INPUT)
        store(dx, d, scale * (dhat - total - hat * along), FOURTH)


@inline
def fill(y: Any, x: Any, D: Any) -> None:
    for d in range(D):
        store(y, d, load(x, d, FIRST), THIRD)


@inline
def zero(y: Any, D: Any, one: Any) -> None:
    for d in range(D):
        store(y, d, one - one, THIRD)


@inline
def add(y: Any, x: Any, D: Any) -> None:
    for d in range(D):
        store(y, d, load(y, d, THIRD) + load(x, d, FIRST), THIRD)


@inline
def add_product(y: Any, a: Any, b: Any, D: Any) -> None:
    for d in range(D):
        store(y, d, load(y, d, THIRD) + load(a, d, FIRST) * load(b, d, FIRST), THIRD)


@inline
def lag_of(x: Any, state: Any, k: Any, t: Any, b: Any, one: Any) -> Any:
    """Pointer to the input of row b k steps before t: in this pass, or in `state` [B, width - 1, D]."""
    return row(x, t - k, b, one) if k <= t else row(state, b, k - t - 1, one)


@inline
def age_of(age: Any, t: Any, b: Any) -> Any:
    """Pointer to the number of lags of row b that belong to its episode at t; `state` is zero before its start."""
    return row(age, t, b, _INTEGER)


def _norm_conv_forward(one: Any) -> Any:
    @c_loop
    def norm_conv_forward(table: Any) -> None:
        """n = norm(x); y[t] = bias + sum over k of weight[k] * n[t - k], as far back as the episode goes."""
        widest()
        B, block, T, D, width = table[1], table[2], table[3], table[4], table[5]
        x, n, stats, y, age = five_arrays(table, 0)
        state, last, start, gamma, beta = five_arrays(table, 5)
        weight, bias, numbers = array(table, 10), array(table, 11), row(array(table, 12), 0, 0, one)
        b0 = take(table)
        while b0 < B:
            b1 = min(b0 + block, B)
            for t in range(T):
                flags = starts(start, t)
                for b in range(b0, b1):
                    normalise(
                        row(x, t, b, one), row(gamma, 0, 0, one), row(beta, 0, 0, one), row(n, t, b, one),
                        row(stats, t, b, one), D, numbers, one,
                    )  # fmt: skip
                    before = age_of(age, t - 1, b)[0] if t > 0 else width - 1
                    lags = 0 if flags[b] else min(before + 1, width - 1)
                    age_of(age, t, b)[0] = lags
                    out = row(y, t, b, one)
                    fill(out, row(bias, 0, 0, one), D)
                    for k in range(lags + 1):
                        add_product(out, lag_of(n, state, k, t, b, one), row(weight, k, 0, one), D)
            for b in range(b0, b1):
                for k in range(width - 1):
                    out = row(last, b, k, one)
                    if k <= age_of(age, T - 1, b)[0]:
                        fill(out, lag_of(n, state, k, T - 1, b, one), D)
                    else:
                        zero(out, D, one)
            b0 = take(table)

    return norm_conv_forward


def _norm_conv_backward(one: Any) -> Any:
    @c_loop
    def norm_conv_backward(table: Any) -> None:
        """Parts of `sums`: scratch, then the gradients of gamma, beta, bias and weight. dlast may be missing."""
        widest()
        B, block, T, D, width = table[1], table[2], table[3], table[4], table[5]
        x, n, stats, dy, age = five_arrays(table, 0)
        state, dlast, dx, dstate, gamma = five_arrays(table, 5)
        weight, sums, numbers = array(table, 10), array(table, 11), row(array(table, 12), 0, 0, one)
        b0 = take(table)
        while b0 < B:
            b1, part = min(b0 + block, B), b0 // block
            dn, dgamma, dbeta = row(sums, part, 0, one), row(sums, part, 1, one), row(sums, part, 2, one)
            dbias = row(sums, part, 3, one)
            for t in range(T - 1, -1, -1):
                for b in range(b0, b1):
                    seen = row(dy, t, b, one)
                    zero(dn, D, one)
                    for k in range(min(width, T - t)):
                        if k <= age_of(age, t + k, b)[0]:
                            add_product(dn, row(dy, t + k, b, one), row(weight, k, 0, one), D)
                    k = T - 1 - t
                    if dlast[0] != 0 and k < width - 1 and k <= age_of(age, T - 1, b)[0]:
                        add(dn, row(dlast, b, k, one), D)
                    for k in range(age_of(age, t, b)[0] + 1):
                        add_product(row(sums, part, 4 + k, one), seen, lag_of(n, state, k, t, b, one), D)
                    add(dbias, seen, D)
                    normalise_backward(
                        row(x, t, b, one), row(gamma, 0, 0, one), row(stats, t, b, one), dn, row(dx, t, b, one),
                        dgamma, dbeta, D, numbers, one,
                    )  # fmt: skip
            for b in range(b0, b1):
                for j in range(width - 1):  # state[j] is lag j + t + 1 of step t
                    out = row(dstate, b, j, one)
                    zero(out, D, one)
                    for t in range(min(T, width - 1 - j)):
                        if j + t + 1 <= age_of(age, t, b)[0]:
                            add_product(out, row(dy, t, b, one), row(weight, j + t + 1, 0, one), D)
                    k = j + T
                    if dlast[0] != 0 and k < width - 1 and k <= age_of(age, T - 1, b)[0]:
                        add(out, row(dlast, b, k, one), D)
            b0 = take(table)

    return norm_conv_backward


def _add_norm_forward(one: Any) -> Any:
    @c_loop
    def add_norm_forward(table: Any) -> None:
        """n = norm(x + update); total = x + update + bias."""
        widest()
        N, block, D = table[1], table[2], table[4]
        x, update, total, n, stats = five_arrays(table, 0)
        gamma, beta, bias = array(table, 5), array(table, 6), row(array(table, 7), 0, 0, one)
        numbers = row(array(table, 8), 0, 0, one)
        r0 = take(table)
        while r0 < N:
            for r in range(r0, min(r0 + block, N)):
                a, b, out = row(x, 0, r, one), row(update, 0, r, one), row(total, 0, r, one)
                for d in range(D):
                    store(out, d, load(a, d, INPUT) + load(b, d, INPUT), THIRD)
                normalise(
                    out, row(gamma, 0, 0, one), row(beta, 0, 0, one), row(n, 0, r, one), row(stats, 0, r, one),
                    D, numbers, one,
                )  # fmt: skip
                add(out, bias, D)
            r0 = take(table)

    return add_norm_forward


def _add_norm_backward(one: Any) -> Any:
    @c_loop
    def add_norm_backward(table: Any) -> None:
        """Parts of `sums`: scratch, then the gradients of gamma, beta and bias."""
        widest()
        N, block, D = table[1], table[2], table[4]
        x, update, stats, dn, dtotal = five_arrays(table, 0)
        dx, gamma, sums = array(table, 5), array(table, 6), array(table, 7)
        numbers = row(array(table, 8), 0, 0, one)
        r0 = take(table)
        while r0 < N:
            part = r0 // block
            total, dgamma, dbeta = row(sums, part, 0, one), row(sums, part, 1, one), row(sums, part, 2, one)
            dbias = row(sums, part, 3, one)
            for r in range(r0, min(r0 + block, N)):
                a, b, passed = row(x, 0, r, one), row(update, 0, r, one), row(dtotal, 0, r, one)
                for d in range(D):
                    store(total, d, load(a, d, INPUT) + load(b, d, INPUT), THIRD)
                    store(dbias, d, load(dbias, d, SECOND) + load(passed, d, INPUT), SECOND)
                normalise_backward(
                    total, row(gamma, 0, 0, one), row(stats, 0, r, one), row(dn, 0, r, one), row(dx, 0, r, one),
                    dgamma, dbeta, D, numbers, one,
                )  # fmt: skip
                out = row(dx, 0, r, one)
                for d in range(D):
                    store(out, d, load(out, d, FOURTH) + load(passed, d, INPUT), FOURTH)
            r0 = take(table)

    return add_norm_backward


def _silu_forward(one: Any) -> Any:
    @c_loop
    def silu_forward(table: Any) -> None:
        """y = x sigmoid(x)."""
        widest()
        N, block, D = table[1], table[2], table[4]
        x, y = array(table, 0), array(table, 1)
        r0 = take(table)
        while r0 < N:
            a, out = row(x, 0, r0, one), row(y, 0, r0, one)
            for i in range((min(r0 + block, N) - r0) * D):
                store(out, i, load(a, i, INPUT) / (one + exp(-load(a, i, INPUT))), FIRST)
            r0 = take(table)

    return silu_forward


def _silu_backward(one: Any) -> Any:
    @c_loop
    def silu_backward(table: Any) -> None:
        """`gradient` enters as that of y and leaves as that of x; `sums` gets the gradient of a bias before x."""
        widest()
        N, block, D = table[1], table[2], table[4]
        x, gradient, sums = array(table, 0), array(table, 1), array(table, 2)
        r0 = take(table)
        while r0 < N:
            total = row(sums, r0 // block, 0, one)
            for r in range(r0, min(r0 + block, N)):
                a, g = row(x, 0, r, one), row(gradient, 0, r, one)
                for d in range(D):
                    v = load(a, d, INPUT)
                    e = exp(-v)
                    s = one / (one + e)
                    slope = load(g, d, FIRST) * s * (one + v * (e * s))
                    store(g, d, slope, FIRST)
                    store(total, d, load(total, d, SECOND) + slope, SECOND)
            r0 = take(table)

    return silu_backward


_FACTORIES: dict[str, Callable[[Any], Any]] = {
    "norm_conv_forward": _norm_conv_forward,
    "norm_conv_backward": _norm_conv_backward,
    "add_norm_forward": _add_norm_forward,
    "add_norm_backward": _add_norm_backward,
    "silu_forward": _silu_forward,
    "silu_backward": _silu_backward,
}


@functools.cache
def loop(name: str, dtype: torch.dtype) -> Loop:
    """The loop `name` for arrays of `dtype`, compiled when it is first asked for."""
    return Loop(_FACTORIES[name](ONE[dtype]))
