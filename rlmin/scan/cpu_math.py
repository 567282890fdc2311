"""What the numba loops inline: rows at an address, an exponential that vectorises, the gates and activations.

An array arrives as a triple (address, stride over time, stride over rows), in elements; its last axis is contiguous.
That costs a tenth of unboxing NumPy arrays, and columns of one wide projection are read where they are.

`one` is 1 in the dtype of the call; all other numbers are made from it, because a Python literal would silently turn
float32 arithmetic into float64.

Numba's disk cache of a loop looks at the file of the loop only: after an edit here, touch `cpu_loops.py`.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numba.extending
import numpy as np

Function = TypeVar("Function", bound=Callable[..., Any])

ACTIVATION_CODES = {"identity": 0, "tanh": 1, "g": 2}
IDENTITY, TANH = ACTIVATION_CODES["identity"], ACTIVATION_CODES["tanh"]

# Nothing here may assume that NaN and infinity do not occur: a NaN input has to arrive as NaN.
_OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "nsz", "arcp", "afn"}}
_numba: Any = numba  # which numba releases carry type hints differs


def compiled(function: Function) -> Function:
    """A loop that Python calls: cached on disk where some cache folder is writable, else compiled in each process."""
    try:
        loop: Function = _numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # numba: "cannot cache function: no locator available"
        loop = _numba.njit(**_OPTIONS)(function)
    return loop


def inlined(function: Function) -> Function:
    """A piece of a loop."""
    piece: Function = _numba.njit(forceinline=True, **_OPTIONS)(function)
    return piece


def _intrinsic(function: Any) -> Any:
    return _numba.extending.intrinsic(function)


def _overload(stub: Any) -> Callable[[Function], Function]:
    decorate: Callable[[Function], Function] = _numba.extending.overload(stub)
    return decorate


@_intrinsic
def _pointer(typing: Any, address: Any, offset: Any, like: Any) -> Any:
    """To element `offset` of the array of `like`'s dtype at `address`."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        base = builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))
        return builder.gep(base, [arguments[1]], inbounds=True)

    return _numba.types.CPointer(like)(address, offset, like), build


@_intrinsic
def _power_of_two(typing: Any, shifted: Any) -> Any:
    """2**n as float32, from the bits of the float32 n + 1.5 * 2**23."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        integer = _numba.types.int32
        bits = builder.bitcast(arguments[0], context.get_value_type(integer))
        biased = builder.add(bits, context.get_constant(integer, 127))
        exponent = builder.shl(biased, context.get_constant(integer, 23))
        return builder.bitcast(exponent, context.get_value_type(_numba.types.float32))

    return _numba.types.float32(_numba.types.float32), build


@inlined
def row(array: Any, t: Any, b: Any, one: Any) -> Any:
    """Pointer to array[t, b]."""
    return _pointer(array[0], t * array[1] + b * array[2], one)


@inlined
def starts(start: Any, t: Any) -> Any:
    """Pointer to the flags of time t."""
    return row(start, t, 0, np.uint8(1))


@inlined
def any_starts(start: Any, t: Any, low: Any, high: Any) -> Any:
    """Whether some row of [low, high) starts at t; an address of 0 is no flags at all."""
    if start[0] == 0:
        return False
    flag = starts(start, t)
    count = 0
    for b in range(low, high):
        count += flag[b]
    return count != 0


@inlined
def clear(start: Any, t: Any, low: Any, high: Any, carry: Any, D: Any, one: Any) -> Any:
    """Set the carry to 0 in the rows of [low, high) that start at t."""
    flag = starts(start, t)
    for b in range(low, high):
        if flag[b]:
            state = row(carry, 0, b, one)
            for d in range(D):
                state[d] = one - one


_LOW, _HIGH, _MAGIC = np.float32(-87), np.float32(87), np.float32(1.5 * 2**23)
_LOG2E, _LN2_HIGH = np.float32(1 / math.log(2)), np.float32(355 / 512)
_LN2_LOW = np.float32(math.log(2) - 355 / 512)
_C1, _C2, _C3, _C4, _C5, _C6, _C7 = (np.float32(1 / math.factorial(n)) for n in range(1, 8))


@inlined
def _split_exp(x: Any) -> Any:
    """(2**n, exp(r) - 1) with x = n ln 2 + r and |r| <= ln 2 / 2, for float32 x held within +-87; NaN stays NaN."""
    x = _LOW if x < _LOW else x
    x = _HIGH if x > _HIGH else x
    shifted = x * _LOG2E + _MAGIC
    n = shifted - _MAGIC
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    rest = r * (_C1 + r * (_C2 + r * (_C3 + r * (_C4 + r * (_C5 + r * (_C6 + r * _C7))))))
    return _power_of_two(shifted), rest


@inlined
def _exp32(x: Any) -> Any:
    scale, rest = _split_exp(x)
    return scale + scale * rest


@inlined
def _tanh32(x: Any) -> Any:
    """expm1(2x) / (expm1(2x) + 2), which keeps its relative precision near 0."""
    scale, rest = _split_exp(x + x)
    expm1 = scale * rest + (scale - np.float32(1))
    return expm1 / (expm1 + np.float32(2))


@inlined
def _exp64(x: Any) -> Any:
    x = -708.0 if x < -708.0 else x
    return math.exp(708.0 if x > 708.0 else x)


@inlined
def _tanh64(x: Any) -> Any:
    return math.tanh(x)


def exp(x: Any) -> Any:
    """exp(x), held to where it and its inverse are finite and normal."""


def tanh(x: Any) -> Any:
    """tanh(x)."""


@_overload(exp)
def _choose_exp(x: Any) -> Any:
    def narrow(x: Any) -> Any:
        return _exp32(x)

    def wide(x: Any) -> Any:
        return _exp64(x)

    return narrow if x == _numba.types.float32 else wide


@_overload(tanh)
def _choose_tanh(x: Any) -> Any:
    def narrow(x: Any) -> Any:
        return _tanh32(x)

    def wide(x: Any) -> Any:
        return _tanh64(x)

    return narrow if x == _numba.types.float32 else wide


@inlined
def activate(activation: Any, x: Any, one: Any) -> Any:
    """c(x). The code is a constant where this is inlined, so the branches cost nothing."""
    if activation == IDENTITY:
        return x
    if activation == TANH:
        return tanh(x)
    below = one / (one + exp(-x))
    return x + one / (one + one) if x >= 0 else below


@inlined
def slope(activation: Any, x: Any, c: Any, one: Any) -> Any:
    """dc/dx, given c(x)."""
    if activation == IDENTITY:
        return one
    if activation == TANH:
        return one - c * c
    return one if x >= 0 else c * (one - c)


@inlined
def lstm_odds(f: Any, i: Any, one: Any) -> Any:
    """(sigmoid(f) / sigmoid(i), sigmoid(-f), sigmoid(-i)), also where both sigmoids vanish."""
    zero = one - one
    u, w = exp(-abs(f)), exp(-abs(i))
    deep_f = zero if f > zero else -f  # softplus(-f) is this plus log(1 + u)
    deep_i = zero if i > zero else -i
    odds = exp(deep_i - deep_f) * (one + w) / (one + u)
    shut_f = (u if f > zero else one) / (one + u)
    shut_i = (w if i > zero else one) / (one + w)
    return odds, shut_f, shut_i
