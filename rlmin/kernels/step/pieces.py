"""Pieces of the step, a row at a time: norm, convolution, the gated averages of the cells, SiLU and sums."""

from typing import Any

import numpy as np

from rlmin.scan.cpu_math import FIRST, INPUT, SECOND, activate, exp, inline, load, lstm_weights, store, sum_loop

AVERAGES = {"min_gru": 0, "min_lstm": 1}
"""The gated averages of `remember`, by their names in a cell's `FastStep`."""
MIN_GRU = AVERAGES["min_gru"]


@sum_loop
def normalise(kind: Any, x: Any, gamma: Any, beta: Any, y: Any, H: Any, numbers: Any, one: Any) -> None:
    """y = norm(x), by the number of its kind in `NORMS`."""
    eps, share, mean, total = numbers[0], numbers[1], one - one, one - one
    if kind == 0:
        for d in range(H):
            y[d] = x[d]
        return
    if kind == 1:
        for d in range(H):
            mean += x[d]
        mean *= share
    for d in range(H):
        total += (x[d] - mean) * (x[d] - mean)
    scale = one / np.sqrt(total * share + eps)
    if kind == 1:
        for d in range(H):
            y[d] = (x[d] - mean) * scale * gamma[d] + beta[d]
    else:
        for d in range(H):
            y[d] = x[d] * scale * gamma[d]


@inline
def convolve(
    n: Any, seen: Any, after: Any, weight: Any, bias: Any, y: Any, wiped: Any, width: Any, H: Any, one: Any
) -> None:
    """y = bias + weight[0] * n + sum over k of weight[k] * seen[k - 1]; after = (n, *seen[:-1]), whose n is there."""
    for d in range(H):
        y[d] = bias[d] + n[d] * weight[d]
    for k in range(1, width):
        was, now = (k - 1) * H, k * H
        if wiped:
            if k < width - 1:
                for d in range(H):
                    after[now + d] = one - one
        else:
            for d in range(H):
                y[d] += seen[was + d] * weight[now + d]
            if k < width - 1:
                for d in range(H):
                    after[now + d] = seen[was + d]


@inline
def remember(
    average: Any,
    parts: Any,
    activation: Any,
    wide: Any,
    bias: Any,
    memory: Any,
    after: Any,
    x: Any,
    wiped: Any,
    H: Any,
    one: Any,
) -> None:
    """after = memory + z * (c(candidate) - memory), and x += after; z as `average` says, a number in AVERAGES.

    The code is a constant once inlined, so the branches cost nothing.
    """
    for d in range(H):
        before = one - one if wiped else load(memory, d, INPUT)
        last = d + (parts - 1) * H
        p, q = activate(activation, load(wide, last, INPUT) + load(bias, last, INPUT), one)
        first = load(wide, d, INPUT) + load(bias, d, INPUT)
        if average == MIN_GRU:
            now = before + (p - q * before) / (q * (one + exp(-first)))
        else:
            e_f, e_i, unit = lstm_weights(first, load(wide, d + H, INPUT) + load(bias, d + H, INPUT), one)
            now = before + (p - q * before) * (unit + e_f) / (q * ((unit + e_f) + (unit + e_i)))
        store(after, d, now, FIRST)
        store(x, d, load(x, d, SECOND) + now, SECOND)


@inline
def silu(wide: Any, bias: Any, F: Any, one: Any) -> None:
    for d in range(F):
        a = wide[d] + bias[d]
        wide[d] = a / (one + exp(-a))


@inline
def add(y: Any, x: Any, H: Any) -> None:
    for d in range(H):
        y[d] += x[d]
