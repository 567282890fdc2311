"""The numba loops of `selective.py`: one row after the other, step by step, with the memory of a row in cache.

The memory is held as [N, E], so the innermost loops run over E channels. The forward loop keeps the memory before every
`EVERY`-th step; the backward loop computes those between them again, with their decays, from the last stretch to the
first.

The argument is a table of integers, a `Header` and then three entries for each array, as `cpu_math.py` describes them.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
import torch

from rlmin.scan.cpu_loops import ONE
from rlmin.scan.cpu_math import (
    CARRY,
    FIRST,
    INPUT,
    SECOND,
    THIRD,
    c_loop,
    exp,
    inline,
    load,
    move,
    row,
    store,
    sum_loop,
    take,
    widest,
)
from rlmin.scan.cpu_threads import Loop


class Header(NamedTuple):
    """Entries of the table before the arrays. The first three are those of every table, see `cpu_math.py`."""

    taken: int  # next row that no thread has taken
    rows: int  # B
    many: int  # rows that a thread takes at once
    T: int
    E: int
    N: int
    threads: int  # address of a table (taken, 0, 1) that numbers the threads
    scratch: int  # `room` elements a thread
    room: int


HEADER = Header(*range(len(Header._fields)))
ARRAYS = len(HEADER)
"""Place of the first array."""
EVERY = 8
"""Number of steps from one memory that is kept to the next."""
_INTEGER = np.int64(1)


def room(E: int, N: int) -> int:
    """Elements of scratch of a thread: the memories and decays of some steps, and the gradient of one memory."""
    return (2 * EVERY + 1) * E * N


@inline
def _scratch(table: Any, one: Any) -> Any:
    """Pointer to the scratch of a thread that begins."""
    number = take(row((table[HEADER.threads], 0, 1), 0, 0, _INTEGER))
    return row((table[HEADER.scratch], 0, 1), 0, number * table[HEADER.room], one)


@inline
def _array(table: Any, number: Any) -> Any:
    place = ARRAYS + 3 * number
    return table[place], table[place + 1], table[place + 2]


@inline
def _turn(x: Any, rows: Any, columns: Any, y: Any) -> None:
    """y [columns, rows] = the transpose of x [rows, columns]."""
    for i in range(rows):
        for j in range(columns):
            y[j * rows + i] = x[i * columns + j]


@inline
def _clear(x: Any, size: Any, one: Any) -> None:
    for i in range(size):
        x[i] = one - one


@inline
def _copy(x: Any, size: Any, y: Any) -> None:
    for i in range(size):
        y[i] = x[i]


@inline
def _starts(start: Any, t: Any, b: Any) -> Any:
    return start[0] != 0 and row(start, t, b, np.uint8(1))[0] != 0


@inline
def _keep(signed: Any, dt: Any, rate: Any, one: Any) -> Any:
    """The decay exp(-dt * rate), or 2 exp(-dt * rate) - 1. The code is a constant once inlined."""
    share = exp(-(dt * rate))
    return share + share - one if signed else share


@inline
def _walk(signed: Any, h: Any, rate: Any, dt: Any, value: Any, y: Any, b: Any, c: Any, E: Any, one: Any) -> None:
    """h = keep * h + value * b and y += h * c, for one n."""
    for e in range(E):
        keep = _keep(signed, load(dt, e, INPUT), load(rate, e, INPUT), one)
        now = keep * load(h, e, CARRY) + load(value, e, INPUT) * b
        store(h, e, now, CARRY)
        store(y, e, load(y, e, FIRST) + now * c, FIRST)


def _forward(one: Any, signed: int) -> Any:
    @c_loop
    def selective_forward(table: Any) -> None:
        widest()
        E, N, size = table[HEADER.E], table[HEADER.N], table[HEADER.E] * table[HEADER.N]
        dt, value, b_, c_, rate = (
            _array(table, 0),
            _array(table, 1),
            _array(table, 2),
            _array(table, 3),
            _array(table, 4),
        )
        start, kept, state, y, last = (
            _array(table, 5),
            _array(table, 6),
            _array(table, 7),
            _array(table, 8),
            _array(table, 9),
        )
        h, rates = _scratch(table, one), row(rate, 0, 0, one)
        r0 = take(table)
        while r0 < table[HEADER.rows]:
            for r in range(r0, min(r0 + table[HEADER.many], table[HEADER.rows])):
                _turn(row(state, 0, r, one), E, N, h)
                for t in range(table[HEADER.T]):
                    if _starts(start, t, r):
                        _clear(h, size, one)
                    if kept[0] != 0 and t % EVERY == 0:
                        _copy(h, size, row(kept, t // EVERY, r, one))
                    b, c, out = row(b_, t, r, one), row(c_, t, r, one), row(y, t, r, one)
                    _clear(out, E, one)
                    for n in range(N):
                        steps, new = row(dt, t, r, one), row(value, t, r, one)
                        _walk(signed, move(h, n * E), move(rates, n * E), steps, new, out, b[n], c[n], E, one)
                _turn(h, N, E, row(last, 0, r, one))
            r0 = take(table)

    return selective_forward


@inline
def _rebuild(signed: Any, table: Any, r: Any, t0: Any, t1: Any, h: Any, keeps: Any, one: Any) -> None:
    """The memories that enter steps t0 to t1 - 1 of a row, one after the other in h, and the decays of these steps."""
    E, N, size = table[HEADER.E], table[HEADER.N], table[HEADER.E] * table[HEADER.N]
    rates = row(_array(table, 4), 0, 0, one)
    _copy(row(_array(table, 6), t0 // EVERY, r, one), size, h)
    for t in range(t0, t1):
        dt, value, b = (
            row(_array(table, 0), t, r, one),
            row(_array(table, 1), t, r, one),
            row(_array(table, 2), t, r, one),
        )
        old, keep = move(h, (t - t0) * size), move(keeps, (t - t0) * size)
        fresh, goes_on = t + 1 < t1 and _starts(_array(table, 5), t + 1, r), t + 1 < t1
        for n in range(N):
            at = n * E
            for e in range(E):
                store(keep, at + e, _keep(signed, load(dt, e, INPUT), load(rates, at + e, INPUT), one), FIRST)
            if goes_on:
                for e in range(E):
                    now = load(keep, at + e, FIRST) * load(old, at + e, CARRY) + load(value, e, INPUT) * b[n]
                    store(move(old, size), at + e, now, CARRY)
        if fresh:
            _clear(move(old, size), size, one)


@sum_loop
def _back(signed: Any, reads: Any, outs: Any, b: Any, c: Any, E: Any, one: Any) -> Any:
    """Back through one step, for one n: the gradients of b and c; g becomes the gradient of the memory that entered."""
    h, keeps, rate, dt, value, dy = reads
    g, of_dt, of_value, of_rate = outs
    of_b, of_c = one - one, one - one
    for e in range(E):
        old, keep, x, of_y = load(h, e, INPUT), load(keeps, e, INPUT), load(value, e, INPUT), load(dy, e, INPUT)
        whole = load(g, e, CARRY) + of_y * c
        of_c += of_y * (keep * old + x * b)
        of_b += whole * x
        slope = -(whole * old) * (keep + one if signed else keep)
        store(of_value, e, load(of_value, e, FIRST) + whole * b, FIRST)
        store(of_dt, e, load(of_dt, e, SECOND) + slope * load(rate, e, INPUT), SECOND)
        store(of_rate, e, load(of_rate, e, THIRD) + slope * load(dt, e, INPUT), THIRD)
        store(g, e, whole * keep, CARRY)
    return of_b, of_c


@inline
def _step_back(signed: Any, table: Any, t: Any, r: Any, h: Any, keeps: Any, g: Any, one: Any) -> None:
    """Back through step t of row r."""
    E = table[HEADER.E]
    dt, value, dy = row(_array(table, 0), t, r, one), row(_array(table, 1), t, r, one), row(_array(table, 7), t, r, one)
    b, c, rates = row(_array(table, 2), t, r, one), row(_array(table, 3), t, r, one), row(_array(table, 4), 0, 0, one)
    of_dt, of_value = row(_array(table, 9), t, r, one), row(_array(table, 10), t, r, one)
    of_b, of_c = row(_array(table, 11), t, r, one), row(_array(table, 12), t, r, one)
    of_rate = row(_array(table, 13), 0, r, one)
    _clear(of_dt, E, one)
    _clear(of_value, E, one)
    for n in range(table[HEADER.N]):
        at = n * E
        reads = move(h, at), move(keeps, at), move(rates, at), dt, value, dy
        outs = move(g, at), of_dt, of_value, move(of_rate, at)
        of_b[n], of_c[n] = _back(signed, reads, outs, b[n], c[n], E, one)


def _backward(one: Any, signed: int) -> Any:
    @c_loop
    def selective_backward(table: Any) -> None:
        widest()
        T, E, N, size = table[HEADER.T], table[HEADER.E], table[HEADER.N], table[HEADER.E] * table[HEADER.N]
        start, carry, of_rate = _array(table, 5), _array(table, 8), _array(table, 13)
        h = _scratch(table, one)
        keeps, g = move(h, EVERY * size), move(h, 2 * EVERY * size)
        r0 = take(table)
        while r0 < table[HEADER.rows]:
            for r in range(r0, min(r0 + table[HEADER.many], table[HEADER.rows])):
                _clear(row(of_rate, 0, r, one), size, one)
                _turn(row(carry, 0, r, one), E, N, g)
                for t0 in range((T - 1) // EVERY * EVERY, -1, -EVERY):
                    t1 = min(T, t0 + EVERY)
                    _rebuild(signed, table, r, t0, t1, h, keeps, one)
                    for t in range(t1 - 1, t0 - 1, -1):
                        at = (t - t0) * size
                        _step_back(signed, table, t, r, move(h, at), move(keeps, at), g, one)
                        if _starts(start, t, r):
                            _clear(g, size, one)
                _turn(g, N, E, row(carry, 0, r, one))
            r0 = take(table)

    return selective_backward


_FACTORIES = {"forward": _forward, "backward": _backward}


@functools.cache
def loop(way: str, signed: bool, dtype: torch.dtype) -> Loop:
    """The loop of this way, compiled when it is first asked for."""
    return Loop(_FACTORIES[way](ONE[dtype], int(signed)))
