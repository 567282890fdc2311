"""The numba loops of the CPU kernel, and the arithmetic they inline.

Every array arrives as an address and two strides in elements (time, row); its last axis is contiguous. That costs a
tenth of unboxing NumPy arrays and lets the columns of one wide projection be read where they are. Loops run over blocks
of rows that keep the carry in cache, then time, then one contiguous span of channels, which is what vectorises:
the whole block where nothing separates its rows, else row by row.

`one` is 1 in the dtype of the call; all other numbers are made from it, because a Python literal would silently turn
float32 arithmetic into float64.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, overload

Function = TypeVar("Function", bound=Callable[..., Any])

IDENTITY, TANH, G = range(3)
ACTIVATION_CODES = {"identity": IDENTITY, "tanh": TANH, "g": G}

# Nothing here may assume that NaN and infinity do not occur: a NaN input has to arrive as NaN.
_SAFE_MATH = {"contract", "nsz", "arcp", "afn"}


def _inlined(function: Function) -> Function:
    compiled: Function = numba.njit(nogil=True, error_model="numpy", fastmath=_SAFE_MATH, forceinline=True)(function)
    return compiled


def _intrinsic(function: Any) -> Any:
    return intrinsic(function)


def _overload(function: Any) -> Any:
    return overload(function)


def _compiled(function: Function) -> Function:
    """A loop that Python calls: cached on disk where some cache folder is writable, else compiled in each process."""
    options = {"nogil": True, "error_model": "numpy", "fastmath": _SAFE_MATH}
    try:
        compiled: Function = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # numba: "cannot cache function: no locator available"
        compiled = numba.njit(**options)(function)
    return compiled


@_intrinsic
def _at(typing: Any, address: Any, offset: Any, like: Any) -> Any:
    """Pointer to element `offset` of the array of `like`'s dtype at `address`."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], context.get_value_type(signature.return_type))
        return builder.gep(pointer, [args[1]], inbounds=True)

    return types.CPointer(like)(address, offset, like), build


@_intrinsic
def _power_of_two(typing: Any, shifted: Any) -> Any:
    """2**n as float32, from the bits of the float32 n + 1.5 * 2**23."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        integer = ir.IntType(32)
        bits = builder.add(builder.bitcast(args[0], integer), ir.Constant(integer, 127))
        return builder.bitcast(builder.shl(bits, ir.Constant(integer, 23)), ir.FloatType())

    return types.float32(types.float32), build


_LOW, _HIGH, _MAGIC = np.float32(-87), np.float32(87), np.float32(1.5 * 2**23)
_LOG2E, _LN2_HIGH = np.float32(1 / math.log(2)), np.float32(355 / 512)
_LN2_LOW = np.float32(math.log(2) - 355 / 512)
_C1, _C2, _C3, _C4, _C5, _C6, _C7 = (np.float32(1 / math.factorial(n)) for n in range(1, 8))


@_inlined
def _split_exp(x: Any) -> Any:
    """(2**n, exp(r) - 1) with x = n ln 2 + r and |r| <= ln 2 / 2, for float32 x held within +-87; NaN stays NaN."""
    x = _LOW if x < _LOW else x
    x = _HIGH if x > _HIGH else x
    shifted = x * _LOG2E + _MAGIC
    n = shifted - _MAGIC
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    rest = r * (_C1 + r * (_C2 + r * (_C3 + r * (_C4 + r * (_C5 + r * (_C6 + r * _C7))))))
    return _power_of_two(shifted), rest


@_inlined
def _exp32(x: Any) -> Any:
    scale, rest = _split_exp(x)
    return scale + scale * rest


@_inlined
def _tanh32(x: Any) -> Any:
    """expm1(2x) / (expm1(2x) + 2), exact to rounding near 0 too."""
    scale, rest = _split_exp(x + x)
    expm1 = scale * rest + (scale - np.float32(1))
    return expm1 / (expm1 + np.float32(2))


@_inlined
def _exp64(x: Any) -> Any:
    x = -708.0 if x < -708.0 else x
    return math.exp(708.0 if x > 708.0 else x)


@_inlined
def _tanh64(x: Any) -> Any:
    return math.tanh(x)


def _exp(x: Any) -> Any:
    """exp(x), held to where it and its inverse are finite and normal."""


def _tanh(x: Any) -> Any:
    """tanh(x)."""


@_overload(_exp)
def _choose_exp(x: Any) -> Any:
    def narrow(x: Any) -> Any:
        return _exp32(x)

    def wide(x: Any) -> Any:
        return _exp64(x)

    return narrow if x == types.float32 else wide


@_overload(_tanh)
def _choose_tanh(x: Any) -> Any:
    def narrow(x: Any) -> Any:
        return _tanh32(x)

    def wide(x: Any) -> Any:
        return _tanh64(x)

    return narrow if x == types.float32 else wide


@_inlined
def _activate(activation: Any, x: Any, one: Any) -> Any:
    if activation == IDENTITY:
        return x
    if activation == TANH:
        return _tanh(x)
    below = one / (one + _exp(-x))
    return below if not x >= 0 else x + one / (one + one)


@_inlined
def _slope(activation: Any, x: Any, c: Any, one: Any) -> Any:
    """dc/dx, given c(x)."""
    if activation == IDENTITY:
        return one
    if activation == TANH:
        return one - c * c
    return c * (one - c) if not x >= 0 else one


@_inlined
def _odds(f: Any, i: Any, one: Any) -> Any:
    """(sigmoid(f) / sigmoid(i), sigmoid(-f), sigmoid(-i)), also where both sigmoids vanish."""
    zero = one - one
    u, w = _exp(-abs(f)), _exp(-abs(i))
    deep_f = zero if f > zero else -f  # softplus(-f) is this plus log(1 + u)
    deep_i = zero if i > zero else -i
    ratio = _exp(deep_i - deep_f) * (one + w) / (one + u)
    shut_f = (u if f > zero else one) / (one + u)
    shut_i = (w if i > zero else one) / (one + w)
    return ratio, shut_f, shut_i


@_inlined
def _clear(start: Any, t: Any, B: Any, D: Any, low: Any, high: Any, carry: Any, one: Any) -> Any:
    """Set the carry to 0 in the rows of [low, high) that start at t."""
    flag = _at(start, t * B, np.uint8(1))
    state = _at(carry, 0, one)
    for b in range(low, high):
        if flag[b]:
            for d in range(b * D, (b + 1) * D):
                state[d] = one - one


@_inlined
def _none_starts(start: Any, t: Any, B: Any, low: Any, high: Any) -> Any:
    flag = _at(start, t * B, np.uint8(1))
    count = 0
    for b in range(low, high):
        count += flag[b]
    return count == 0


@_compiled
def linear_forward(
    decay: Any, decay_t: Any, decay_b: Any, value: Any, value_t: Any, value_b: Any,
    h: Any, carry: Any, start: Any, T: Any, B: Any, D: Any, low: Any, high: Any, block: Any, reverse: Any, one: Any,
) -> None:
    """h[t] = decay[t] * carry + value[t], for rows [low, high)."""
    whole = decay_b == D and value_b == D
    for b0 in range(low, high, block):
        b1 = min(b0 + block, high)
        step, width = (b1 - b0, (b1 - b0) * D) if whole else (1, D)
        for i in range(T):
            t = T - 1 - i if reverse else i
            if start != 0:
                _clear(start, t, B, D, b0, b1, carry, one)
            for b in range(b0, b1, step):
                a = _at(decay, t * decay_t + b * decay_b, one)
                v = _at(value, t * value_t + b * value_b, one)
                state = _at(carry, b * D, one)
                out = _at(h, (t * B + b) * D, one)
                for d in range(width):
                    state[d] = out[d] = a[d] * state[d] + v[d]


@_compiled
def linear_backward(
    grad: Any, grad_t: Any, grad_b: Any, decay: Any, decay_t: Any, decay_b: Any,
    h: Any, initial: Any, zeros: Any, grad_decay: Any, grad_value: Any,
    carry: Any, start: Any, T: Any, B: Any, D: Any, low: Any, high: Any, block: Any, reverse: Any, one: Any,
) -> None:
    """The adjoint of `linear_forward`; `carry` enters as the gradient of the last state and leaves as the first's."""
    whole = grad_b == D and decay_b == D
    for b0 in range(low, high, block):
        b1 = min(b0 + block, high)
        for i in range(T):
            t = i if reverse else T - 1 - i
            earlier = t + 1 if reverse else t - 1
            before = initial if i == T - 1 else h
            offset = 0 if i == T - 1 else earlier * B * D
            unbroken = start == 0 or _none_starts(start, t, B, b0, b1)
            step, width = (b1 - b0, (b1 - b0) * D) if whole and unbroken else (1, D)
            for b in range(b0, b1, step):
                fresh = not unbroken and _at(start, t * B, np.uint8(1))[b] != 0
                g = _at(grad, t * grad_t + b * grad_b, one)
                a = _at(decay, t * decay_t + b * decay_b, one)
                past = _at(zeros, 0, one) if fresh else _at(before, offset + b * D, one)
                rest = _at(carry, b * D, one)
                da = _at(grad_decay, (t * B + b) * D, one)
                db = _at(grad_value, (t * B + b) * D, one)
                for d in range(width):
                    total = g[d] + rest[d]
                    da[d] = total * past[d]
                    db[d] = total
                    rest[d] = total * a[d]
            if not unbroken:
                _clear(start, t, B, D, b0, b1, carry, one)


def _gru_forward_for(activation: int) -> Callable[..., None]:
    @_compiled
    def gru_forward(
        gate: Any, gate_t: Any, gate_b: Any, candidate: Any, candidate_t: Any, candidate_b: Any,
        h: Any, carry: Any, start: Any, T: Any, B: Any, D: Any, low: Any, high: Any, block: Any, one: Any,
    ) -> None:
        whole = gate_b == D and candidate_b == D
        for b0 in range(low, high, block):
            b1 = min(b0 + block, high)
            step, width = (b1 - b0, (b1 - b0) * D) if whole else (1, D)
            for t in range(T):
                if start != 0:
                    _clear(start, t, B, D, b0, b1, carry, one)
                for b in range(b0, b1, step):
                    k = _at(gate, t * gate_t + b * gate_b, one)
                    v = _at(candidate, t * candidate_t + b * candidate_b, one)
                    state = _at(carry, b * D, one)
                    out = _at(h, (t * B + b) * D, one)
                    for d in range(width):
                        z = one / (one + _exp(-k[d]))
                        state[d] = out[d] = state[d] + z * (_activate(activation, v[d], one) - state[d])

    return gru_forward


def _gru_backward_for(activation: int) -> Callable[..., None]:
    @_compiled
    def gru_backward(
        grad: Any, grad_t: Any, grad_b: Any, gate: Any, gate_t: Any, gate_b: Any,
        candidate: Any, candidate_t: Any, candidate_b: Any,
        h: Any, initial: Any, zeros: Any, grad_gate: Any, grad_candidate: Any,
        carry: Any, start: Any, T: Any, B: Any, D: Any, low: Any, high: Any, block: Any, one: Any,
    ) -> None:
        whole = grad_b == D and gate_b == D and candidate_b == D
        for b0 in range(low, high, block):
            b1 = min(b0 + block, high)
            for t in range(T - 1, -1, -1):
                before = initial if t == 0 else h
                offset = 0 if t == 0 else (t - 1) * B * D
                unbroken = start == 0 or _none_starts(start, t, B, b0, b1)
                step, width = (b1 - b0, (b1 - b0) * D) if whole and unbroken else (1, D)
                for b in range(b0, b1, step):
                    fresh = not unbroken and _at(start, t * B, np.uint8(1))[b] != 0
                    g = _at(grad, t * grad_t + b * grad_b, one)
                    k = _at(gate, t * gate_t + b * gate_b, one)
                    v = _at(candidate, t * candidate_t + b * candidate_b, one)
                    past = _at(zeros, 0, one) if fresh else _at(before, offset + b * D, one)
                    rest = _at(carry, b * D, one)
                    dk = _at(grad_gate, (t * B + b) * D, one)
                    dv = _at(grad_candidate, (t * B + b) * D, one)
                    for d in range(width):
                        e = _exp(-k[d])
                        z = one / (one + e)
                        c = _activate(activation, v[d], one)
                        total = g[d] + rest[d]
                        shut = total * (e * z)
                        dk[d] = shut * z * (c - past[d])
                        dv[d] = total * z * _slope(activation, v[d], c, one)
                        rest[d] = shut
                if not unbroken:
                    _clear(start, t, B, D, b0, b1, carry, one)

    return gru_backward


def _lstm_forward_for(activation: int) -> Callable[..., None]:
    @_compiled
    def lstm_forward(
        forget: Any, forget_t: Any, forget_b: Any, input: Any, input_t: Any, input_b: Any,
        candidate: Any, candidate_t: Any, candidate_b: Any,
        h: Any, carry: Any, start: Any, T: Any, B: Any, D: Any, low: Any, high: Any, block: Any, one: Any,
    ) -> None:
        whole = forget_b == D and input_b == D and candidate_b == D
        for b0 in range(low, high, block):
            b1 = min(b0 + block, high)
            step, width = (b1 - b0, (b1 - b0) * D) if whole else (1, D)
            for t in range(T):
                if start != 0:
                    _clear(start, t, B, D, b0, b1, carry, one)
                for b in range(b0, b1, step):
                    f = _at(forget, t * forget_t + b * forget_b, one)
                    i = _at(input, t * input_t + b * input_b, one)
                    v = _at(candidate, t * candidate_t + b * candidate_b, one)
                    state = _at(carry, b * D, one)
                    out = _at(h, (t * B + b) * D, one)
                    for d in range(width):
                        e, _, _ = _odds(f[d], i[d], one)
                        state[d] = out[d] = state[d] + (_activate(activation, v[d], one) - state[d]) / (one + e)

    return lstm_forward


def _lstm_backward_for(activation: int) -> Callable[..., None]:
    @_compiled
    def lstm_backward(
        grad: Any, grad_t: Any, grad_b: Any, forget: Any, forget_t: Any, forget_b: Any,
        input: Any, input_t: Any, input_b: Any, candidate: Any, candidate_t: Any, candidate_b: Any,
        h: Any, initial: Any, zeros: Any, grad_forget: Any, grad_input: Any, grad_candidate: Any,
        carry: Any, start: Any, T: Any, B: Any, D: Any, low: Any, high: Any, block: Any, one: Any,
    ) -> None:
        whole = grad_b == D and forget_b == D and input_b == D and candidate_b == D
        for b0 in range(low, high, block):
            b1 = min(b0 + block, high)
            for t in range(T - 1, -1, -1):
                before = initial if t == 0 else h
                offset = 0 if t == 0 else (t - 1) * B * D
                unbroken = start == 0 or _none_starts(start, t, B, b0, b1)
                step, width = (b1 - b0, (b1 - b0) * D) if whole and unbroken else (1, D)
                for b in range(b0, b1, step):
                    fresh = not unbroken and _at(start, t * B, np.uint8(1))[b] != 0
                    g = _at(grad, t * grad_t + b * grad_b, one)
                    f = _at(forget, t * forget_t + b * forget_b, one)
                    i = _at(input, t * input_t + b * input_b, one)
                    v = _at(candidate, t * candidate_t + b * candidate_b, one)
                    past = _at(zeros, 0, one) if fresh else _at(before, offset + b * D, one)
                    rest = _at(carry, b * D, one)
                    df = _at(grad_forget, (t * B + b) * D, one)
                    di = _at(grad_input, (t * B + b) * D, one)
                    dv = _at(grad_candidate, (t * B + b) * D, one)
                    for d in range(width):
                        e, shut_f, shut_i = _odds(f[d], i[d], one)
                        z = one / (one + e)
                        c = _activate(activation, v[d], one)
                        total = g[d] + rest[d]
                        kept = total * (e * z)
                        dk = kept * z * (c - past[d])
                        df[d] = -dk * shut_f
                        di[d] = dk * shut_i
                        dv[d] = total * z * _slope(activation, v[d], c, one)
                        rest[d] = kept
                if not unbroken:
                    _clear(start, t, B, D, b0, b1, carry, one)

    return lstm_backward


GRU_FORWARD = {name: _gru_forward_for(code) for name, code in ACTIVATION_CODES.items()}
GRU_BACKWARD = {name: _gru_backward_for(code) for name, code in ACTIVATION_CODES.items()}
LSTM_FORWARD = {name: _lstm_forward_for(code) for name, code in ACTIVATION_CODES.items()}
LSTM_BACKWARD = {name: _lstm_backward_for(code) for name, code in ACTIVATION_CODES.items()}
