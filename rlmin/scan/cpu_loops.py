"""The numba loops of the CPU kernel, one forward and one backward per scan.

Each runs over blocks of rows that keep the carry in cache, then over time, then over spans of channels that are
contiguous in every array, which is what vectorises: a whole block where nothing separates its rows, else row by row.

Arrays are triples (address, stride over time, stride over rows), see `cpu_math.py`. `size` is (T, B, D); `rows` is
(low, high, block): this call does rows low to high, `block` at a time. `carry` holds the state that enters and is
left holding the last one; in a backward loop, the gradient of the last state and of the initial one.
"""

from collections.abc import Callable
from typing import Any

from rlmin.scan.cpu_math import (
    ACTIVATION_CODES,
    activate,
    any_starts,
    clear,
    compiled,
    exp,
    inlined,
    lstm_odds,
    row,
    slope,
    starts,
)


@inlined
def _span(whole: Any, b0: Any, b1: Any, D: Any) -> Any:
    """(rows, channels) that one innermost loop covers."""
    return (b1 - b0, (b1 - b0) * D) if whole else (1, D)


@inlined
def _past(h: Any, initial: Any, zeros: Any, fresh: Any, first: Any, t: Any, b: Any, one: Any) -> Any:
    """The state that entered the step after t in row b."""
    if fresh:
        return row(zeros, 0, 0, one)
    return row(initial, 0, b, one) if first else row(h, t, b, one)


@compiled
def linear_forward(
    decay: Any, value: Any, h: Any, carry: Any, start: Any, size: Any, rows: Any, reverse: Any, one: Any
) -> None:
    """h[t] = decay[t] * carry + value[t]."""
    T, _, D = size
    low, high, block = rows
    whole = decay[2] == D and value[2] == D
    for b0 in range(low, high, block):
        b1 = min(b0 + block, high)
        step, width = _span(whole, b0, b1, D)
        for i in range(T):
            t = T - 1 - i if reverse else i
            if start[0] != 0:
                clear(start, t, b0, b1, carry, D, one)
            for b in range(b0, b1, step):
                a, v = row(decay, t, b, one), row(value, t, b, one)
                state, out = row(carry, 0, b, one), row(h, t, b, one)
                for d in range(width):
                    state[d] = out[d] = a[d] * state[d] + v[d]


@compiled
def linear_backward(
    grad: Any,
    decay: Any,
    h: Any,
    initial: Any,
    zeros: Any,
    grad_decay: Any,
    grad_value: Any,
    carry: Any,
    start: Any,
    size: Any,
    rows: Any,
    reverse: Any,
    one: Any,
) -> None:
    T, _, D = size
    low, high, block = rows
    whole = grad[2] == D and decay[2] == D
    for b0 in range(low, high, block):
        b1 = min(b0 + block, high)
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
                    total = g[d] + rest[d]
                    da[d] = total * past[d]
                    db[d] = total
                    rest[d] = total * a[d]
            if broken:
                clear(start, t, b0, b1, carry, D, one)


def _gru_forward(activation: int) -> Callable[..., None]:
    @compiled
    def gru_forward(gate: Any, candidate: Any, h: Any, carry: Any, start: Any, size: Any, rows: Any, one: Any) -> None:
        T, _, D = size
        low, high, block = rows
        whole = gate[2] == D and candidate[2] == D
        for b0 in range(low, high, block):
            b1 = min(b0 + block, high)
            step, width = _span(whole, b0, b1, D)
            for t in range(T):
                if start[0] != 0:
                    clear(start, t, b0, b1, carry, D, one)
                for b in range(b0, b1, step):
                    k, v = row(gate, t, b, one), row(candidate, t, b, one)
                    state, out = row(carry, 0, b, one), row(h, t, b, one)
                    for d in range(width):
                        z = one / (one + exp(-k[d]))
                        state[d] = out[d] = state[d] + z * (activate(activation, v[d], one) - state[d])

    return gru_forward


def _gru_backward(activation: int) -> Callable[..., None]:
    @compiled
    def gru_backward(
        grad: Any,
        gate: Any,
        candidate: Any,
        h: Any,
        initial: Any,
        zeros: Any,
        grad_gate: Any,
        grad_candidate: Any,
        carry: Any,
        start: Any,
        size: Any,
        rows: Any,
        one: Any,
    ) -> None:
        T, _, D = size
        low, high, block = rows
        whole = grad[2] == D and gate[2] == D and candidate[2] == D
        for b0 in range(low, high, block):
            b1 = min(b0 + block, high)
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
                        e = exp(-k[d])
                        z = one / (one + e)
                        c = activate(activation, v[d], one)
                        total = g[d] + rest[d]
                        kept = total * (e * z)
                        dk[d] = kept * z * (c - past[d])
                        dv[d] = total * z * slope(activation, v[d], c, one)
                        rest[d] = kept
                if broken:
                    clear(start, t, b0, b1, carry, D, one)

    return gru_backward


def _lstm_forward(activation: int) -> Callable[..., None]:
    @compiled
    def lstm_forward(
        forget: Any, input: Any, candidate: Any, h: Any, carry: Any, start: Any, size: Any, rows: Any, one: Any
    ) -> None:
        T, _, D = size
        low, high, block = rows
        whole = forget[2] == D and input[2] == D and candidate[2] == D
        for b0 in range(low, high, block):
            b1 = min(b0 + block, high)
            step, width = _span(whole, b0, b1, D)
            for t in range(T):
                if start[0] != 0:
                    clear(start, t, b0, b1, carry, D, one)
                for b in range(b0, b1, step):
                    f, i, v = row(forget, t, b, one), row(input, t, b, one), row(candidate, t, b, one)
                    state, out = row(carry, 0, b, one), row(h, t, b, one)
                    for d in range(width):
                        odds, _, _ = lstm_odds(f[d], i[d], one)
                        state[d] = out[d] = state[d] + (activate(activation, v[d], one) - state[d]) / (one + odds)

    return lstm_forward


def _lstm_backward(activation: int) -> Callable[..., None]:
    @compiled
    def lstm_backward(
        grad: Any,
        forget: Any,
        input: Any,
        candidate: Any,
        h: Any,
        initial: Any,
        zeros: Any,
        grad_forget: Any,
        grad_input: Any,
        grad_candidate: Any,
        carry: Any,
        start: Any,
        size: Any,
        rows: Any,
        one: Any,
    ) -> None:
        T, _, D = size
        low, high, block = rows
        whole = grad[2] == D and forget[2] == D and input[2] == D and candidate[2] == D
        for b0 in range(low, high, block):
            b1 = min(b0 + block, high)
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
                        odds, shut_f, shut_i = lstm_odds(f[d], i[d], one)
                        z = one / (one + odds)
                        c = activate(activation, v[d], one)
                        total = g[d] + rest[d]
                        kept = total * (odds * z)
                        dk = kept * z * (c - past[d])
                        df[d] = -dk * shut_f
                        di[d] = dk * shut_i
                        dv[d] = total * z * slope(activation, v[d], c, one)
                        rest[d] = kept
                if broken:
                    clear(start, t, b0, b1, carry, D, one)

    return lstm_backward


# One loop per activation, each compiled when it is first called.
GRU_FORWARD = {name: _gru_forward(code) for name, code in ACTIVATION_CODES.items()}
GRU_BACKWARD = {name: _gru_backward(code) for name, code in ACTIVATION_CODES.items()}
LSTM_FORWARD = {name: _lstm_forward(code) for name, code in ACTIVATION_CODES.items()}
LSTM_BACKWARD = {name: _lstm_backward(code) for name, code in ACTIVATION_CODES.items()}
