"""The numba loops of the scans on the CPU, one forward and one backward per scan.

Each takes blocks of rows that keep the carry in cache, then runs over time, then over spans of channels that are
contiguous in every array and therefore vectorise: a whole block if its rows are adjacent, else row by row.

`cpu_math.py` describes the table that a loop reads; the first line of the loop names its arrays.
`carry` holds the state that enters, and afterwards the last one; in a backward loop, the gradient of the last state and
afterwards that of the initial one. The gradients of the inputs may be columns of one array, either all or none of them.
"""

import ctypes
import functools
from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np
import torch

from rlmin.scan.cpu_math import (
    ACTIVATION_CODES,
    CARRY,
    FIRST,
    INPUT,
    SECOND,
    THIRD,
    activate,
    any_starts,
    array,
    c_loop,
    clear,
    exp,
    five_arrays,
    inline,
    load,
    lstm_weights,
    row,
    slope,
    starts,
    store,
    take,
    widest,
)
from rlmin.scan.cpu_threads import Loop


@inline
def _span(whole: Any, b0: Any, b1: Any, D: Any) -> Any:
    """(rows, channels) that one innermost loop covers."""
    return (b1 - b0, (b1 - b0) * D) if whole else (1, D)


@inline
def _past(h: Any, initial: Any, zeros: Any, fresh: Any, first: Any, t: Any, b: Any, one: Any) -> Any:
    """The state that entered the step after t in row b."""
    if fresh:
        return row(zeros, 0, 0, one)
    return row(initial, 0, b, one) if first else row(h, t, b, one)


def _linear_forward(one: Any, activation: int) -> Any:
    @c_loop
    def linear_forward(table: Any) -> None:
        widest()
        B, block, T, D, reverse = table[1], table[2], table[3], table[4], table[5]
        decay, value, h, carry, start = five_arrays(table, 0)
        whole = decay[2] == D and value[2] == D
        b0 = take(table)
        while b0 < B:
            b1 = min(b0 + block, B)
            step, width = _span(whole, b0, b1, D)
            for i in range(T):
                t = T - 1 - i if reverse else i
                if start[0] != 0:
                    clear(start, t, b0, b1, carry, D, one)
                for b in range(b0, b1, step):
                    a, v = row(decay, t, b, one), row(value, t, b, one)
                    state, out = row(carry, 0, b, one), row(h, t, b, one)
                    for d in range(width):
                        now = load(a, d, INPUT) * load(state, d, CARRY) + load(v, d, INPUT)
                        store(state, d, now, CARRY)
                        store(out, d, now, FIRST)
            b0 = take(table)

    return linear_forward


def _linear_backward(one: Any, activation: int) -> Any:
    @c_loop
    def linear_backward(table: Any) -> None:
        widest()
        B, block, T, D, reverse = table[1], table[2], table[3], table[4], table[5]
        grad, decay, h, initial, zeros = five_arrays(table, 0)
        grad_decay, grad_value, carry, start = array(table, 5), array(table, 6), array(table, 7), array(table, 8)
        whole = grad[2] == D and decay[2] == D and grad_decay[2] == D
        b0 = take(table)
        while b0 < B:
            b1 = min(b0 + block, B)
            for i in range(T - 1, -1, -1):
                t, before = (T - 1 - i, T - i) if reverse else (i, i - 1)
                broken = any_starts(start, t, b0, b1)
                step, width = _span(whole and not broken, b0, b1, D)
                for b in range(b0, b1, step):
                    fresh = broken and starts(start, t)[b] != 0
                    g, a = row(grad, t, b, one), row(decay, t, b, one)
                    past = _past(h, initial, zeros, fresh, i == 0, before, b, one)
                    rest = row(carry, 0, b, one)
                    da, db = row(grad_decay, t, b, one), row(grad_value, t, b, one)
                    for d in range(width):
                        total = load(g, d, INPUT) + load(rest, d, CARRY)
                        store(da, d, total * load(past, d, INPUT), FIRST)
                        store(db, d, total, SECOND)
                        store(rest, d, total * load(a, d, INPUT), CARRY)
                if broken:
                    clear(start, t, b0, b1, carry, D, one)
            b0 = take(table)

    return linear_backward


def _gru_forward(one: Any, activation: int) -> Any:
    @c_loop
    def gru_forward(table: Any) -> None:
        widest()
        B, block, T, D = table[1], table[2], table[3], table[4]
        gate, candidate, h, carry, start = five_arrays(table, 0)
        whole = gate[2] == D and candidate[2] == D
        b0 = take(table)
        while b0 < B:
            b1 = min(b0 + block, B)
            step, width = _span(whole, b0, b1, D)
            for t in range(T):
                if start[0] != 0:
                    clear(start, t, b0, b1, carry, D, one)
                for b in range(b0, b1, step):
                    k, v = row(gate, t, b, one), row(candidate, t, b, one)
                    state, out = row(carry, 0, b, one), row(h, t, b, one)
                    for d in range(width):
                        p, q = activate(activation, load(v, d, INPUT), one)
                        before = load(state, d, CARRY)
                        now = before + (p - q * before) / (q * (one + exp(-load(k, d, INPUT))))
                        store(state, d, now, CARRY)
                        store(out, d, now, FIRST)
            b0 = take(table)

    return gru_forward


def _gru_backward(one: Any, activation: int) -> Any:
    @c_loop
    def gru_backward(table: Any) -> None:
        widest()
        B, block, T, D = table[1], table[2], table[3], table[4]
        grad, gate, candidate, h, initial = five_arrays(table, 0)
        zeros, grad_gate, grad_candidate, carry, start = five_arrays(table, 5)
        whole = grad[2] == D and gate[2] == D and candidate[2] == D and grad_gate[2] == D
        b0 = take(table)
        while b0 < B:
            b1 = min(b0 + block, B)
            for t in range(T - 1, -1, -1):
                broken = any_starts(start, t, b0, b1)
                step, width = _span(whole and not broken, b0, b1, D)
                for b in range(b0, b1, step):
                    fresh = broken and starts(start, t)[b] != 0
                    g, k, v = row(grad, t, b, one), row(gate, t, b, one), row(candidate, t, b, one)
                    past = _past(h, initial, zeros, fresh, t == 0, t - 1, b, one)
                    rest = row(carry, 0, b, one)
                    dk, dv = row(grad_gate, t, b, one), row(grad_candidate, t, b, one)
                    for d in range(width):
                        e, x = exp(-load(k, d, INPUT)), load(v, d, INPUT)
                        p, q = activate(activation, x, one)
                        inverse = one / (q * (one + e))
                        z, c = q * inverse, p * ((one + e) * inverse)
                        total = load(g, d, INPUT) + load(rest, d, CARRY)
                        kept = total * (e * z)
                        store(dk, d, kept * z * (c - load(past, d, INPUT)), FIRST)
                        store(dv, d, total * z * slope(activation, x, c, one), SECOND)
                        store(rest, d, kept, CARRY)
                if broken:
                    clear(start, t, b0, b1, carry, D, one)
            b0 = take(table)

    return gru_backward


def _lstm_forward(one: Any, activation: int) -> Any:
    @c_loop
    def lstm_forward(table: Any) -> None:
        widest()
        B, block, T, D = table[1], table[2], table[3], table[4]
        forget, input, candidate, h, carry = five_arrays(table, 0)
        start = array(table, 5)
        whole = forget[2] == D and input[2] == D and candidate[2] == D
        b0 = take(table)
        while b0 < B:
            b1 = min(b0 + block, B)
            step, width = _span(whole, b0, b1, D)
            for t in range(T):
                if start[0] != 0:
                    clear(start, t, b0, b1, carry, D, one)
                for b in range(b0, b1, step):
                    f, i, v = row(forget, t, b, one), row(input, t, b, one), row(candidate, t, b, one)
                    state, out = row(carry, 0, b, one), row(h, t, b, one)
                    for d in range(width):
                        p, q = activate(activation, load(v, d, INPUT), one)
                        e_f, e_i, unit = lstm_weights(load(f, d, INPUT), load(i, d, INPUT), one)
                        written, kept = unit + e_f, unit + e_i
                        before = load(state, d, CARRY)
                        now = before + (p - q * before) * written / (q * (written + kept))
                        store(state, d, now, CARRY)
                        store(out, d, now, FIRST)
            b0 = take(table)

    return lstm_forward


def _lstm_backward(one: Any, activation: int) -> Any:
    @c_loop
    def lstm_backward(table: Any) -> None:
        widest()
        B, block, T, D = table[1], table[2], table[3], table[4]
        grad, forget, input, candidate, h = five_arrays(table, 0)
        initial, zeros, grad_forget, grad_input, grad_candidate = five_arrays(table, 5)
        carry, start = array(table, 10), array(table, 11)
        whole = grad[2] == D and forget[2] == D and input[2] == D and candidate[2] == D and grad_forget[2] == D
        b0 = take(table)
        while b0 < B:
            b1 = min(b0 + block, B)
            for t in range(T - 1, -1, -1):
                broken = any_starts(start, t, b0, b1)
                step, width = _span(whole and not broken, b0, b1, D)
                for b in range(b0, b1, step):
                    fresh = broken and starts(start, t)[b] != 0
                    g, v = row(grad, t, b, one), row(candidate, t, b, one)
                    f, i = row(forget, t, b, one), row(input, t, b, one)
                    past = _past(h, initial, zeros, fresh, t == 0, t - 1, b, one)
                    rest = row(carry, 0, b, one)
                    df, di, dv = row(grad_forget, t, b, one), row(grad_input, t, b, one), row(grad_candidate, t, b, one)
                    for d in range(width):
                        x = load(v, d, INPUT)
                        p, q = activate(activation, x, one)
                        e_f, e_i, unit = lstm_weights(load(f, d, INPUT), load(i, d, INPUT), one)
                        written, kept = unit + e_f, unit + e_i
                        inverse = one / (q * (written + kept))
                        share, c = q * inverse, p * ((written + kept) * inverse)  # share of one of the weights
                        total = load(g, d, INPUT) + load(rest, d, CARRY)
                        change = total * share * (c - load(past, d, INPUT)) * share
                        store(df, d, -change * kept * e_f, FIRST)
                        store(di, d, change * written * e_i, SECOND)
                        store(dv, d, total * share * written * slope(activation, x, c, one), THIRD)
                        store(rest, d, total * share * kept, CARRY)
                if broken:
                    clear(start, t, b0, b1, carry, D, one)
            b0 = take(table)

    return lstm_backward


_FACTORIES: dict[str, Callable[[Any, int], Any]] = {
    "linear_forward": _linear_forward,
    "linear_backward": _linear_backward,
    "gru_forward": _gru_forward,
    "gru_backward": _gru_backward,
    "lstm_forward": _lstm_forward,
    "lstm_backward": _lstm_backward,
}
ONE = {torch.float32: np.float32(1), torch.float64: np.float64(1)}


@functools.cache
def loop(name: str, activation: str, dtype: torch.dtype) -> Loop:
    """The loop `name` for arrays of `dtype`, compiled when it is first asked for; `linear` has no activation."""
    return Loop(_FACTORIES[name](ONE[dtype], ACTIVATION_CODES[activation]))


def _as_function(name: str, activation: str) -> Callable[..., None]:
    def run(*arguments: Any) -> None:
        *arrays, (T, B, D), (_, _, block), one = arguments
        table = (0, B, block, T, D, 0, *chain.from_iterable(arrays))
        dtype = torch.float64 if isinstance(one, np.float64) else torch.float32
        loop(name, activation, dtype).run((ctypes.c_int64 * len(table))(*table), 1)

    return run


# The forward loops on arrays as triples (address, stride over time, stride over rows), then (T, B, D), rows, and 1.
GRU_FORWARD = {activation: _as_function("gru_forward", activation) for activation in ACTIVATION_CODES}
LSTM_FORWARD = {activation: _as_function("lstm_forward", activation) for activation in ACTIVATION_CODES}
