"""Functions that the numba loops inline: rows at an address, an exponential that vectorises, gates and activations.

A scan spends its time on divisions and exponentials. So an activation is returned as a quotient p / q, and the loops
divide once for all gates and activations of an element.

A loop is a C function of one argument, a table of integers, so that any thread can run it:

    next row that nobody has taken, rows B, rows to take at once, steps T, channels D, option,
    then three for each array: address, stride over time, stride over rows; the strides in elements

The last axis of an array is contiguous, and an address of 0 means that there is no array. Columns of one wide
projection are read in place.

`one` is 1 in the dtype of the loop; all other numbers derive from it, because a Python literal would silently turn
float32 arithmetic into float64.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numba.extending
import numpy as np

from rlmin.scan.cpu_cache import build_cached

Function = TypeVar("Function", bound=Callable[..., Any])

ACTIVATION_CODES = {"identity": 0, "tanh": 1, "g": 2}
IDENTITY, TANH = ACTIVATION_CODES["identity"], ACTIVATION_CODES["tanh"]

# Nothing here may assume that NaN and infinity do not occur: a NaN input must come out as NaN.
_FAST = {"contract", "nsz", "arcp", "afn"}
_OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": _FAST}
_numba: Any = numba  # some numba releases have type hints, some do not


def compile_loop(function: Function) -> Function:
    """A loop that Python calls: cached on disk if some cache folder is writable, else compiled in each process."""
    loop: Function = build_cached(lambda **cache: _numba.njit(**cache, **_OPTIONS)(function))
    return loop


def c_loop(function: Callable[[Any], None]) -> Any:
    """A loop that any thread can call, a C function of a table, cached as `compile_loop` does."""
    signature = _numba.types.void(_numba.types.CPointer(_numba.types.int64))
    return build_cached(lambda **cache: _numba.cfunc(signature, **cache, **_OPTIONS)(function))


def inline(function: Function) -> Function:
    """A piece of a loop."""
    piece: Function = _numba.njit(forceinline=True, **_OPTIONS)(function)
    return piece


def sum_loop(function: Function) -> Function:
    """A piece of a loop that sums over channels. It adds terms in any order, as otherwise it would not vectorise."""
    piece: Function = _numba.njit(forceinline=True, **{**_OPTIONS, "fastmath": _FAST | {"reassoc"}})(function)
    return piece


def _intrinsic(function: Any) -> Any:
    return _numba.extending.intrinsic(function)


def _overload(stub: Any) -> Callable[[Function], Function]:
    decorate: Callable[[Function], Function] = _numba.extending.overload(stub)
    return decorate


@_intrinsic
def take(typing: Any, table: Any) -> Any:
    """The first of the next rows that no thread has taken; B or more where all are."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        many = builder.load(builder.gep(arguments[0], [context.get_constant(_numba.types.int64, 2)]))
        return builder.atomic_rmw("add", arguments[0], many, "monotonic")

    return _numba.types.int64(table), build


@_intrinsic
def _pointer(typing: Any, address: Any, offset: Any, like: Any) -> Any:
    """Pointer to element `offset` of the array of `like`'s dtype at `address`."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        base = builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))
        return builder.gep(base, [arguments[1]], inbounds=True)

    return _numba.types.CPointer(like)(address, offset, like), build


@_intrinsic
def move(typing: Any, pointer: Any, offset: Any) -> Any:
    """Pointer to pointer[offset]."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.gep(arguments[0], [arguments[1]], inbounds=True)

    return pointer(pointer, offset), build


INPUT, CARRY, FIRST, SECOND, THIRD, FOURTH, FIFTH, SIXTH = range(8)
"""Memory that a `load` or `store` touches: an input, the carry, or one of the outputs."""


def _promise(access: Any, builder: Any, own: int) -> None:
    """Tell LLVM that a value stored through one of the names above is never read through another.

    LLVM can compare addresses to find that out, but gives up if two outputs are columns of one array.
    """
    add = builder.module.add_metadata
    domain = add(["rlmin"])
    scopes = {name: add([f"rlmin {name}", domain]) for name in range(CARRY, SIXTH + 1)}
    access.set_metadata("noalias", add([scope for name, scope in scopes.items() if name != own]))
    if own != INPUT:
        access.set_metadata("alias.scope", add([scopes[own]]))


@_intrinsic
def load(typing: Any, pointer: Any, index: Any, name: Any) -> Any:
    """pointer[index], of the array `name`."""
    if not isinstance(name, _numba.types.Literal):
        return None  # numba asks again with the value

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = builder.load(builder.gep(arguments[0], [arguments[1]], inbounds=True))
        _promise(value, builder, name.literal_value)
        return value

    return pointer.dtype(pointer, index, name), build


@_intrinsic
def store(typing: Any, pointer: Any, index: Any, value: Any, name: Any) -> Any:
    """pointer[index] = value, in the array `name`."""
    if not isinstance(name, _numba.types.Literal):
        return None

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        at = builder.gep(arguments[0], [arguments[1]], inbounds=True)
        _promise(builder.store(arguments[2], at), builder, name.literal_value)
        return context.get_dummy_value()

    return _numba.types.none(pointer, index, value, name), build


@_intrinsic
def widest(typing: Any) -> Any:
    """Let the calling loop use the widest vectors of the CPU; by default LLVM uses half of AVX-512's."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        attributes = builder.function.attributes
        if isinstance(attributes, set):  # llvmlite's own `add` knows no attribute that has a value
            set.add(attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return _numba.types.none(), build


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


@inline
def array(table: Any, number: Any) -> Any:
    """(address, stride over time, stride over rows)."""
    return table[6 + 3 * number], table[7 + 3 * number], table[8 + 3 * number]


@inline
def five_arrays(table: Any, first: Any) -> Any:
    """Five arrays in a row."""
    a, b = array(table, first), array(table, first + 1)
    return a, b, array(table, first + 2), array(table, first + 3), array(table, first + 4)


@inline
def row(array: Any, t: Any, b: Any, one: Any) -> Any:
    """Pointer to array[t, b]."""
    return _pointer(array[0], t * array[1] + b * array[2], one)


@inline
def starts(start: Any, t: Any) -> Any:
    """Pointer to the flags of time t."""
    return row(start, t, 0, np.uint8(1))


@inline
def any_starts(start: Any, t: Any, low: Any, high: Any) -> Any:
    """Whether some row of [low, high) starts at t; an address of 0 is no flags at all."""
    if start[0] == 0:
        return False
    flag = starts(start, t)
    count = 0
    for b in range(low, high):
        count += flag[b]
    return count != 0


@inline
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


@inline
def _exp32(x: Any) -> Any:
    """2**n * exp(r) with x = n ln 2 + r and |r| <= ln 2 / 2, for x held within +-87; NaN stays NaN."""
    x = _LOW if x < _LOW else x
    x = _HIGH if x > _HIGH else x
    shifted = x * _LOG2E + _MAGIC
    n = shifted - _MAGIC
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    rest = r * (_C1 + r * (_C2 + r * (_C3 + r * (_C4 + r * (_C5 + r * (_C6 + r * _C7))))))
    scale = _power_of_two(shifted)
    return scale + scale * rest


# x P(x**2) / Q(x**2), fitted for the least relative error on |x| <= 9 (6e-8), beyond which tanh(x) rounds to 1.
_NINE = np.float32(9)
_P0, _P1, _P2 = np.float32(3.1686062e-03), np.float32(4.093594e-04), np.float32(9.254734e-06)
_P3, _P4, _P5 = np.float32(2.9364728e-08), np.float32(-4.0495995e-11), np.float32(5.7843324e-14)
_Q0, _Q1 = np.float32(3.1686064e-03), np.float32(1.4655599e-03)
_Q2, _Q3 = np.float32(7.5296084e-05), np.float32(7.227584e-07)


@inline
def _tanh32(x: Any) -> Any:
    x = -_NINE if x < -_NINE else x
    x = _NINE if x > _NINE else x
    y = x * x
    p = x * (_P0 + y * (_P1 + y * (_P2 + y * (_P3 + y * (_P4 + y * _P5)))))
    return p, _Q0 + y * (_Q1 + y * (_Q2 + y * _Q3))


@inline
def _exp64(x: Any) -> Any:
    x = -708.0 if x < -708.0 else x
    return math.exp(708.0 if x > 708.0 else x)


@inline
def _tanh64(x: Any) -> Any:
    return math.tanh(x), 1.0


def exp(x: Any) -> Any:
    """exp(x), clipped to the range where it and its inverse are finite and normal."""


def tanh(x: Any) -> Any:
    """(p, q) with tanh(x) = p / q and 0 < q <= 1."""


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


@inline
def activate(activation: Any, x: Any, one: Any) -> Any:
    """(p, q) with c(x) = p / q, 0 < q <= 2. The code is a constant once inlined, so the branches cost nothing."""
    if activation == IDENTITY:
        return x, one
    if activation == TANH:
        return tanh(x)
    zero = one - one
    e = exp(zero if x > zero else x)
    p = x + one / (one + one) if x >= zero else e
    return p, one if x >= zero else one + e


@inline
def slope(activation: Any, x: Any, c: Any, one: Any) -> Any:
    """dc/dx, given c(x)."""
    if activation == IDENTITY:
        return one
    if activation == TANH:
        return one - c * c
    return one if x >= 0 else c * (one - c)


@inline
def sigmoid(x: Any, one: Any) -> Any:
    """1 / (1 + exp(-x))."""
    return one / (one + exp(-x))


@inline
def lstm_weights(f: Any, i: Any, one: Any) -> Any:
    """exp(-f), exp(-i) and 1, all over the largest of the three: every gate is a quotient of their sums."""
    zero = one - one
    first = f < i
    low = f if first else i
    high = i if first else f
    both = low > zero
    near = exp(low if low < zero else -low)  # the ratio of exp(-low) and 1, or its inverse, whichever is at most 1
    far = exp((zero if both else low) - high)
    e_low = near if both else one
    return e_low if first else far, far if first else e_low, one if both else near
