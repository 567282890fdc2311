"""One step of a stack of residual blocks, its matrix products included, as one call.

A step of B rows is some forty small operations. From Python each costs more than its work, products aside, and a loop
between two products loses its gain to the calls; so the whole step is one loop (see `rlmin.encoders.Stack.step` for
its equations), and threads share the rows. What a policy has around its stack can be part of it: two layers that x
goes through first, and linear heads that read y.

The table begins as `cpu_math.py` describes; `HEADER`, then `BLOCK` for each block, then `HEAD` for each head name its
entries, all addresses or sizes. Every array is contiguous, and an address of 0 is a part that is left out.

After an edit in `cpu_math.py` or `cpu_step_product.py`, touch this file too: see there.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
import torch

from rlmin.scan.cpu_loops import ONE
from rlmin.scan.cpu_math import (
    ACTIVATION_CODES,
    FIRST,
    INPUT,
    SECOND,
    activate,
    c_loop,
    exp,
    inlined,
    load,
    lstm_weights,
    row,
    store,
    take,
    widest,
)
from rlmin.scan.cpu_step_product import product
from rlmin.scan.cpu_threads import Loop

Function = TypeVar("Function", bound=Callable[..., Any])
_numba: Any = numba

HEADER = (
    *("taken", "rows", "many", "layers", "H", "width", "norm", "F", "routine", "D", "threads", "scratch", "room"),
    *("numbers", "start", "x", "y", "embed.weight", "embed.bias", "norm.weight", "norm.bias"),
    *("G", "front.weight", "front.bias", "heads"),
)
"""taken, rows, many: as in every table. width: of the convolution. norm: a number in `NORMS`. F: hidden units of the
MLP. D: of x, where there is an embedding. G: hidden units of that embedding, or 0. threads: a table of (taken, 0, 1),
from which a thread takes its number. scratch: `room` elements a thread. numbers: eps and 1 / H. y: 0 where only heads
read it. heads: how many."""
BLOCK = (
    *("norm.weight", "norm.bias", "conv.weight", "conv.bias", "mixer.projection.weight", "mixer.projection.bias"),
    *("mlp_norm.weight", "mlp_norm.bias", "mlp.0.weight", "mlp.0.bias", "mlp.2.weight", "mlp.2.bias"),
    *("seen", "seen_after", "memory", "memory_after"),
)
"""Of each block; `seen` is the state of the convolution, `memory` that of the mixer."""
HEAD = ("outputs", "weight", "bias", "projected")
"""Of each head: projected = weight @ y + bias."""
NORMS = ("none", "layer", "rms")

(_TAKEN, _ROWS, _MANY, _LAYERS, _H, _WIDTH, _NORM, _F, _ROUTINE, _D, _THREADS, _SCRATCH, _ROOM, _NUMBERS, _START, _X,
 _Y, _EMBED, _EMBED_BIAS, _GAMMA, _BETA, _G, _FRONT, _FRONT_BIAS, _HEADS) = range(len(HEADER))  # fmt: skip
_FIRST, _EACH, _EACH_HEAD = len(HEADER), len(BLOCK), len(HEAD)
_INTEGER, _BYTE = np.int64(1), np.uint8(1)


def room(rows: int, H: int, widest: int) -> int:
    """Elements of scratch that a thread needs which takes `rows` at once; widest: outputs of a layer inside."""
    return rows * (2 * H + widest)


def _summing(function: Function) -> Function:
    """A piece of a loop that sums over channels: terms may be added in any order, or it would not vectorise."""
    fast = {"contract", "nsz", "arcp", "afn", "reassoc"}
    piece: Function = _numba.njit(forceinline=True, nogil=True, error_model="numpy", fastmath=fast)(function)
    return piece


@inlined
def _at(address: Any, offset: Any, one: Any) -> Any:
    """Pointer to element `offset` of the array at `address`."""
    return row((address, 0, 1), 0, offset, one)


@_summing
def _normalise(kind: Any, x: Any, gamma: Any, beta: Any, y: Any, H: Any, numbers: Any, one: Any) -> None:
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


@inlined
def _convolve(
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


@inlined
def _remember(
    parts: Any, activation: Any, wide: Any, bias: Any, memory: Any, after: Any, x: Any, wiped: Any, H: Any, one: Any
) -> None:
    """after = memory + z * (c(candidate) - memory), and x += after; z as in minGRU (2 parts) or minLSTM (3)."""
    for d in range(H):
        before = one - one if wiped else load(memory, d, INPUT)
        last = d + (parts - 1) * H
        p, q = activate(activation, load(wide, last, INPUT) + load(bias, last, INPUT), one)
        first = load(wide, d, INPUT) + load(bias, d, INPUT)
        if parts == 2:
            now = before + (p - q * before) / (q * (one + exp(-first)))
        else:
            e_f, e_i, unit = lstm_weights(first, load(wide, d + H, INPUT) + load(bias, d + H, INPUT), one)
            now = before + (p - q * before) * (unit + e_f) / (q * ((unit + e_f) + (unit + e_i)))
        store(after, d, now, FIRST)
        store(x, d, load(x, d, SECOND) + now, SECOND)


@inlined
def _silu(wide: Any, bias: Any, F: Any, one: Any) -> None:
    for d in range(F):
        a = wide[d] + bias[d]
        wide[d] = a / (one + exp(-a))


@inlined
def _add(y: Any, x: Any, H: Any) -> None:
    for d in range(H):
        y[d] += x[d]


@inlined
def _enter(table: Any, b0: Any, rows: Any, base: Any, one: Any) -> None:
    """x = embed(silu(front(input))), for rows from b0; x is at element `base` of the scratch."""
    H, D, G, x = table[_H], table[_D], table[_G], _at(table[_SCRATCH], base, one)
    given = _at(table[_X], b0 * (H if D == 0 else D), one)
    if D == 0:
        for d in range(rows * H):
            x[d] = given[d]
        return
    if G != 0:
        hidden = base + 2 * rows * H
        wide = _at(table[_SCRATCH], hidden, one)
        product(table[_ROUTINE], given, _at(table[_FRONT], 0, one), wide, rows, D, G, one - one)
        for r in range(rows):
            _silu(_at(table[_SCRATCH], hidden + r * G, one), _at(table[_FRONT_BIAS], 0, one), G, one)
        given, D = wide, G
    product(table[_ROUTINE], given, _at(table[_EMBED], 0, one), x, rows, D, H, one - one)
    for r in range(rows):
        _add(_at(table[_SCRATCH], base + r * H, one), _at(table[_EMBED_BIAS], 0, one), H)


@inlined
def _read(table: Any, block: Any, b0: Any, rows: Any, base: Any, numbers: Any, one: Any) -> None:
    """y = conv(norm(x)), for rows from b0; y lies behind x."""
    H, width, kind, scratch = table[_H], table[_WIDTH], table[_NORM], table[_SCRATCH]
    gamma, beta = _at(table[block], 0, one), _at(table[block + 1], 0, one)
    weight, bias, flags = _at(table[block + 2], 0, one), _at(table[block + 3], 0, one), _at(table[_START], b0, _BYTE)
    held = (width - 1) * H
    for r in range(rows):
        x, y = _at(scratch, base + r * H, one), _at(scratch, base + (rows + r) * H, one)
        if width == 0:
            _normalise(kind, x, gamma, beta, y, H, numbers, one)
        else:
            at = (b0 + r) * held
            after = _at(table[block + 13], at, one)
            _normalise(kind, x, gamma, beta, after, H, numbers, one)
            _convolve(after, _at(table[block + 12], at, one), after, weight, bias, y, flags[r] != 0, width, H, one)


@inlined
def _feed(table: Any, block: Any, rows: Any, base: Any, numbers: Any, one: Any) -> None:
    """x += W2 silu(W1 norm(x) + b1) + b2."""
    H, F, scratch, routine = table[_H], table[_F], table[_SCRATCH], table[_ROUTINE]
    gamma, beta = _at(table[block + 6], 0, one), _at(table[block + 7], 0, one)
    b1, b2 = _at(table[block + 9], 0, one), _at(table[block + 11], 0, one)
    x, y = _at(scratch, base, one), _at(scratch, base + rows * H, one)
    hidden = _at(scratch, base + 2 * rows * H, one)
    for r in range(rows):
        now = _at(scratch, base + r * H, one)
        _normalise(table[_NORM], now, gamma, beta, _at(scratch, base + (rows + r) * H, one), H, numbers, one)
        _add(now, b2, H)
    product(routine, y, _at(table[block + 8], 0, one), hidden, rows, H, F, one - one)
    for r in range(rows):
        _silu(_at(scratch, base + 2 * rows * H + r * F, one), b1, F, one)
    product(routine, hidden, _at(table[block + 10], 0, one), x, rows, F, H, one)


@inlined
def _leave(table: Any, b0: Any, rows: Any, base: Any, numbers: Any, one: Any) -> None:
    """y = norm(x), and what each head makes of it, for rows from b0."""
    H, scratch = table[_H], table[_SCRATCH]
    gamma, beta = _at(table[_GAMMA], 0, one), _at(table[_BETA], 0, one)
    inside = base + rows * H
    y = _at(scratch, inside, one) if table[_Y] == 0 else _at(table[_Y], b0 * H, one)
    for r in range(rows):
        now = _at(scratch, inside + r * H, one) if table[_Y] == 0 else _at(table[_Y], (b0 + r) * H, one)
        _normalise(table[_NORM], _at(scratch, base + r * H, one), gamma, beta, now, H, numbers, one)
    for i in range(table[_HEADS]):
        head = _FIRST + table[_LAYERS] * _EACH + i * _EACH_HEAD
        n, bias = table[head], _at(table[head + 2], 0, one)
        product(
            table[_ROUTINE], y, _at(table[head + 1], 0, one), _at(table[head + 3], b0 * n, one), rows, H, n, one - one
        )
        for r in range(rows):
            _add(_at(table[head + 3], (b0 + r) * n, one), bias, n)


def _stack_step(one: Any, parts: int, activation: int) -> Any:
    @c_loop
    def stack_step(table: Any) -> None:
        widest()
        B, many, H, scratch = table[_ROWS], table[_MANY], table[_H], table[_SCRATCH]
        base = take(_at(table[_THREADS], 0, _INTEGER)) * table[_ROOM]
        numbers = _at(table[_NUMBERS], 0, one)
        b0 = take(table)
        while b0 < B:
            rows = min(many, B - b0)
            _enter(table, b0, rows, base, one)
            wide = base + 2 * rows * H
            for i in range(table[_LAYERS]):
                block = _FIRST + i * _EACH
                _read(table, block, b0, rows, base, numbers, one)
                y, weight = _at(scratch, base + rows * H, one), _at(table[block + 4], 0, one)
                product(table[_ROUTINE], y, weight, _at(scratch, wide, one), rows, H, parts * H, one - one)
                for r in range(rows):
                    at, bias = (b0 + r) * H, _at(table[block + 5], 0, one)
                    memory, after = _at(table[block + 14], at, one), _at(table[block + 15], at, one)
                    x, wiped = _at(scratch, base + r * H, one), _at(table[_START], b0 + r, _BYTE)[0] != 0
                    projected = _at(scratch, wide + r * parts * H, one)
                    _remember(parts, activation, projected, bias, memory, after, x, wiped, H, one)
                if table[_F] != 0:
                    _feed(table, block, rows, base, numbers, one)
            _leave(table, b0, rows, base, numbers, one)
            b0 = take(table)

    return stack_step


@functools.cache
def loop(dtype: torch.dtype, parts: int, activation: str) -> Loop:
    """The step of stacks of minGRU (2 parts) or minLSTM (3), compiled when it is first asked for."""
    return Loop(_stack_step(ONE[dtype], parts, ACTIVATION_CODES[activation]))
