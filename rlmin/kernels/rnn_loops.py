"""The numba loops between the matrix products of a GRU and of an LSTM: one pass over the gates of a step, both ways.

`cpu_math.py` describes the table that a loop reads; its option is the step t.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch

from rlmin.scan.cpu_loops import ONE
from rlmin.scan.cpu_math import (
    CARRY,
    FIFTH,
    FIRST,
    FOURTH,
    INPUT,
    SECOND,
    SIXTH,
    THIRD,
    array,
    c_loop,
    five_arrays,
    load,
    row,
    sigmoid,
    starts,
    store,
    take,
    tanh,
    widest,
)
from rlmin.scan.cpu_threads import Loop


def _gru_forward(one: Any) -> Any:
    @c_loop
    def gru_step_forward(table: Any) -> None:
        widest()
        B, block, D, t = table[1], table[2], table[4], table[5]
        projected, recurred, bias, gates, before = five_arrays(table, 0)
        y, start = array(table, 5), array(table, 6)
        b0 = take(table)
        while b0 < B:
            for b in range(b0, min(b0 + block, B)):
                x, u, w = row(projected, t, b, one), row(recurred, 0, b, one), row(bias, 0, 0, one)
                old, out, saved = row(before, t, b, one), row(y, t, b, one), row(gates, t, b, one)
                into, wiped = row(before, t + 1, b, one), starts(start, t + 1)[b] != 0
                for d in range(D):
                    hn = load(u, d + 2 * D, INPUT) + load(w, d + 2 * D, INPUT)
                    r = sigmoid(load(x, d, INPUT) + load(u, d, INPUT) + load(w, d, INPUT), one)
                    z = sigmoid(load(x, d + D, INPUT) + load(u, d + D, INPUT) + load(w, d + D, INPUT), one)
                    p, q = tanh(load(x, d + 2 * D, INPUT) + r * hn)
                    n = p / q
                    h = n + z * (load(old, d, INPUT) - n)
                    store(saved, d, r, FIRST)
                    store(saved, d + D, z, SECOND)
                    store(saved, d + 2 * D, n, THIRD)
                    store(saved, d + 3 * D, hn, FOURTH)
                    store(out, d, h, FIFTH)
                    store(into, d, one - one if wiped else h, SIXTH)
            b0 = take(table)

    return gru_step_forward


def _gru_backward(one: Any) -> Any:
    @c_loop
    def gru_step_backward(table: Any) -> None:
        widest()
        B, block, D, t = table[1], table[2], table[4], table[5]
        grad, gates, before, projected, recurred = five_arrays(table, 0)
        carry, start = array(table, 5), array(table, 6)
        b0 = take(table)
        while b0 < B:
            for b in range(b0, min(b0 + block, B)):
                dy, saved, old = row(grad, t, b, one), row(gates, t, b, one), row(before, t, b, one)
                dx, du, rest = row(projected, t, b, one), row(recurred, t, b, one), row(carry, 0, b, one)
                keep = one - one if starts(start, t + 1)[b] else one
                for d in range(D):
                    r, z = load(saved, d, INPUT), load(saved, d + D, INPUT)
                    n, hn = load(saved, d + 2 * D, INPUT), load(saved, d + 3 * D, INPUT)
                    g = load(dy, d, INPUT) + keep * load(rest, d, CARRY)
                    dn = g * (one - z) * (one - n * n)
                    dz = g * (load(old, d, INPUT) - n) * z * (one - z)
                    dr = dn * hn * r * (one - r)
                    store(dx, d, dr, FIRST)
                    store(dx, d + D, dz, SECOND)
                    store(dx, d + 2 * D, dn, THIRD)
                    store(du, d, dr, FOURTH)
                    store(du, d + D, dz, FIFTH)
                    store(du, d + 2 * D, dn * r, SIXTH)
                    store(rest, d, g * z, CARRY)
            b0 = take(table)

    return gru_step_backward


def _lstm_forward(one: Any) -> Any:
    @c_loop
    def lstm_step_forward(table: Any) -> None:
        widest()
        B, block, D, t = table[1], table[2], table[4], table[5]
        projected, recurred, gates, h_before, c_before = five_arrays(table, 0)
        y, start = array(table, 5), array(table, 6)
        b0 = take(table)
        while b0 < B:
            for b in range(b0, min(b0 + block, B)):
                x, u, saved = row(projected, t, b, one), row(recurred, 0, b, one), row(gates, t, b, one)
                old, out = row(c_before, t, b, one), row(y, t, b, one)
                h_next, c_next = row(h_before, t + 1, b, one), row(c_before, t + 1, b, one)
                wiped = starts(start, t + 1)[b] != 0
                for d in range(D):
                    i = sigmoid(load(x, d, INPUT) + load(u, d, INPUT), one)
                    f = sigmoid(load(x, d + D, INPUT) + load(u, d + D, INPUT), one)
                    p, q = tanh(load(x, d + 2 * D, INPUT) + load(u, d + 2 * D, INPUT))
                    o = sigmoid(load(x, d + 3 * D, INPUT) + load(u, d + 3 * D, INPUT), one)
                    g = p / q
                    c = f * load(old, d, INPUT) + i * g
                    p, q = tanh(c)
                    h = o * (p / q)
                    store(saved, d, i, CARRY)
                    store(saved, d + D, f, FIRST)
                    store(saved, d + 2 * D, g, SECOND)
                    store(saved, d + 3 * D, o, THIRD)
                    store(out, d, h, FOURTH)
                    store(h_next, d, one - one if wiped else h, FIFTH)
                    store(c_next, d, one - one if wiped else c, SIXTH)
            b0 = take(table)

    return lstm_step_forward


def _lstm_backward(one: Any) -> Any:
    @c_loop
    def lstm_step_backward(table: Any) -> None:
        widest()
        B, block, D, t = table[1], table[2], table[4], table[5]
        grad, gates, c_before, grad_gates, grad_h = five_arrays(table, 0)
        grad_c, start = array(table, 5), array(table, 6)
        b0 = take(table)
        while b0 < B:
            for b in range(b0, min(b0 + block, B)):
                dy, saved, old = row(grad, t, b, one), row(gates, t, b, one), row(c_before, t, b, one)
                out, dh, dc = row(grad_gates, t, b, one), row(grad_h, 0, b, one), row(grad_c, 0, b, one)
                keep = one - one if starts(start, t + 1)[b] else one
                for d in range(D):
                    i, f = load(saved, d, INPUT), load(saved, d + D, INPUT)
                    g, o = load(saved, d + 2 * D, INPUT), load(saved, d + 3 * D, INPUT)
                    c = load(old, d, INPUT)
                    p, q = tanh(f * c + i * g)
                    squashed = p / q
                    to_h = load(dy, d, INPUT) + keep * load(dh, d, INPUT)
                    to_c = keep * load(dc, d, CARRY) + to_h * o * (one - squashed * squashed)
                    store(out, d, to_c * g * i * (one - i), FIRST)
                    store(out, d + D, to_c * c * f * (one - f), SECOND)
                    store(out, d + 2 * D, to_c * i * (one - g * g), THIRD)
                    store(out, d + 3 * D, to_h * squashed * o * (one - o), FOURTH)
                    store(dc, d, to_c * f, CARRY)
            b0 = take(table)

    return lstm_step_backward


_FACTORIES: dict[str, Callable[[Any], Any]] = {
    "gru_forward": _gru_forward,
    "gru_backward": _gru_backward,
    "lstm_forward": _lstm_forward,
    "lstm_backward": _lstm_backward,
}


@functools.cache
def loop(name: str, dtype: torch.dtype) -> Loop:
    """The loop `name` for arrays of `dtype`, compiled when it is first asked for."""
    return Loop(_FACTORIES[name](ONE[dtype]))
