"""The numba loop of `outer_scan` on the CPU, forward, and what the backward loop shares with it.

Heads of rows are taken one after the other, and walked through step by step. The memory S of a head stays in cache. It
is held transposed, [V, K]: what a step does to a column of S depends on no other column, so a step is one pass over V
rows. They are filled up with zeros to `wide`, a whole number of vectors.

The argument is a table of integers, a `Header` and then four entries for each array: address, and strides over time,
rows and heads in elements. The last axis of an array is contiguous, and an address of 0 means that there is no array.
"""

from typing import Any, NamedTuple

import numpy as np
import torch

from rlmin.scan.cpu_math import c_loop, exp, inline, move, row, take, widest
from rlmin.scan.cpu_vector import LANES, fetch, plus, put, spread, times, total, vector
from rlmin.scan.outer_chunks import LEAST_OF_HEAD, LEAST_OF_KEY


class Header(NamedTuple):
    """Entries of the table before the arrays. The first three are those of every table, see `cpu_math.py`."""

    taken: int  # next head that no thread has taken
    all: int  # B * heads
    many: int  # heads that a thread takes at once
    T: int
    heads: int
    K: int
    V: int
    wide: int  # elements of a row of the memory
    exclusive: int
    each: int  # whether each key feature has a decay of its own
    threads: int  # address of a table (taken, 0, 1) that numbers the threads
    scratch: int  # `room` elements a thread
    room: int


HEADER = Header(*range(len(Header._fields)))
ARRAYS = len(HEADER)
"""Place of the first array."""
EVERY = 16
"""Number of steps from one memory that is kept for the backward loop to the next."""
SUM, WRITE, REMOVE = range(3)
"""What a step removes: nothing, a share of what its key held, or what its probe finds."""
AHEAD = 2
"""Steps from asking for memory to using it."""
VECTORS = 10
"""Rows of scratch beside the memories."""
_INTEGER = np.int64(1)


def width(K: int, dtype: torch.dtype) -> int:
    """Elements of a row of K."""
    return -(-K // LANES[dtype]) * LANES[dtype]


def room(wide: int, V: int) -> int:
    """Elements of scratch of a thread: the memories of some steps, the gradient of one, rows, and columns."""
    return (EVERY + 1) * wide * V + VECTORS * wide + 2 * V


@inline
def at(address: Any, offset: Any, one: Any) -> Any:
    """Pointer to element `offset` of the array at `address`."""
    return row((address, 0, 1), 0, offset, one)


@inline
def scratch_of(table: Any, one: Any) -> Any:
    """Pointer to the scratch of a thread that begins."""
    number = take(at(table[HEADER.threads], 0, _INTEGER))
    return at(table[HEADER.scratch], number * table[HEADER.room], one)


@inline
def array_of(table: Any, number: Any, b: Any, h: Any) -> Any:
    """(address, stride over time, element of step 0) of an array, in head h of row b."""
    place = ARRAYS + 4 * number
    return table[place], table[place + 1], b * table[place + 2] + h * table[place + 3]


@inline
def now(array: Any, t: Any, one: Any) -> Any:
    """Pointer to step t of an array."""
    return row((array[0], array[1], 1), t, array[2], one)


@inline
def inputs_of(table: Any, b: Any, h: Any) -> Any:
    """The arrays that both loops read, in head h of row b: query, key, value, decay, extra, add, start and kept."""
    first = array_of(table, 0, b, h), array_of(table, 1, b, h), array_of(table, 2, b, h), array_of(table, 3, b, h)
    return (
        *first,
        array_of(table, 4, b, h),
        array_of(table, 5, b, h),
        array_of(table, 6, b, h),
        array_of(table, 7, b, h),
    )


@inline
def enter(x: Any, K: Any, V: Any, wide: Any, s: Any, one: Any) -> None:
    """s [V, wide] = x [K, V]"""
    for v in range(V):
        for k in range(K):
            s[v * wide + k] = x[k * V + v]
        for k in range(K, wide):
            s[v * wide + k] = one - one


@inline
def leave(s: Any, K: Any, V: Any, wide: Any, x: Any) -> None:
    """x [K, V] = s [V, wide]"""
    for v in range(V):
        for k in range(K):
            x[k * V + v] = s[v * wide + k]


@inline
def copy(x: Any, size: Any, y: Any) -> None:
    for i in range(size):
        y[i] = x[i]


@inline
def clear(x: Any, size: Any, one: Any) -> None:
    for i in range(size):
        x[i] = one - one


@inline
def is_wiped(start: Any, t: Any) -> Any:
    """Whether the memory is wiped before step t, in the row whose flags `start` are."""
    return start[0] != 0 and now(start, t, np.uint8(1))[0] != 0


@inline
def ask(array: Any, t: Any, size: Any, lanes: Any, one: Any) -> None:
    """Ask for step t of an array, as the next step is too far away for the CPU to guess."""
    if array[0] != 0:
        x = now(array, t, one)
        for i in range(0, size, lanes):
            fetch(move(x, i))


@inline
def ask_inputs(table: Any, inputs: Any, t: Any, lanes: Any, one: Any) -> None:
    """Ask for all that step t reads."""
    K = table[HEADER.K]
    ask(inputs[0], t, K, lanes, one)
    ask(inputs[1], t, K, lanes, one)
    ask(inputs[2], t, table[HEADER.V], lanes, one)
    ask(inputs[3], t, K if table[HEADER.each] else 1, lanes, one)
    ask(inputs[4], t, K if inputs[5][0] != 0 else 1, lanes, one)
    ask(inputs[5], t, K, lanes, one)


@inline
def _pad(x: Any, K: Any, wide: Any, into: Any, one: Any) -> Any:
    """x [K] with zeros up to `wide`: x itself, or a copy."""
    if wide == K:
        return x
    copy(x, K, into)
    clear(move(into, K), wide - K, one)
    return into


@inline
def _decays(g: Any, t: Any, table: Any, least: Any, lanes: Any, a: Any, one: Any) -> None:
    """a = exp(g[t]), for K key features; 1 where there is no g."""
    K, wide = table[HEADER.K], table[HEADER.wide]
    if table[HEADER.each] == 0:
        share = one
        if g[0] != 0:
            low = now(g, t, one)[0]
            share = exp(least if low < least else low)
        for k in range(0, wide, lanes):
            put(a, k, spread(share))
        return
    log_decay = _pad(now(g, t, one), K, wide, a, one)
    for k in range(0, wide, lanes):
        for i in range(lanes):  # a number that LLVM knows
            low = log_decay[k + i]
            a[k + i] = exp(least if low < least else low)


@inline
def read(kind: Any, table: Any, inputs: Any, t: Any, least: Any, rows: Any, lanes: Any, one: Any) -> Any:
    """Decays, query, key, extra and add of step t; `rows` is scratch for them."""
    queries, keys, _, decays, extras, adds, _, _ = inputs
    K, wide = table[HEADER.K], table[HEADER.wide]
    _decays(decays, t, table, least, lanes, rows, one)
    query = _pad(now(queries, t, one), K, wide, move(rows, wide), one)
    key = _pad(now(keys, t, one), K, wide, move(rows, 2 * wide), one)
    extra, add = now(extras, t, one), now(adds, t, one)
    if kind == REMOVE:
        extra = _pad(extra, K, wide, move(rows, 3 * wide), one)
        add = _pad(add, K, wide, move(rows, 4 * wide), one)
    return rows, query, key, extra, add


@inline
def dot(x: Any, s: Any, wide: Any, lanes: Any, one: Any) -> Any:
    """x . s"""
    found = spread(one - one)
    for k in range(0, wide, lanes):
        found = plus(found, vector(x, k), vector(s, k))
    return total(found)


@inline
def dot_decayed(a: Any, x: Any, s: Any, wide: Any, lanes: Any, one: Any) -> Any:
    """x . (a * s)"""
    found = spread(one - one)
    for k in range(0, wide, lanes):
        found = plus(found, vector(x, k), times(vector(a, k), vector(s, k)))
    return total(found)


@inline
def step(kind: Any, table: Any, reads: Any, s: Any, value: Any, after: Any, lanes: Any, one: Any) -> None:
    """after [V, wide] = the memory after a step, s that before it. The kind is a constant once inlined."""
    a, _, key, extra, add = reads
    wide = table[HEADER.wide]
    for v in range(table[HEADER.V]):
        old, new = move(s, v * wide), move(after, v * wide)
        written, u = value[v], one
        if kind == REMOVE:
            u = dot(extra, old, wide, lanes, one)
        if kind == WRITE:
            written = extra[0] * (written - dot_decayed(a, key, old, wide, lanes, one))
        x, removed = spread(written), spread(u)
        for k in range(0, wide, lanes):
            found = plus(times(vector(a, k), vector(old, k)), vector(key, k), x)
            if kind == REMOVE:
                found = plus(found, vector(add, k), removed)
            put(new, k, found)


@inline
def _answer(table: Any, query: Any, s: Any, y: Any, lanes: Any, one: Any) -> None:
    """y = what the query reads in the memory s."""
    wide = table[HEADER.wide]
    for v in range(table[HEADER.V]):
        y[v] = dot(query, move(s, v * wide), wide, lanes, one)


def forward(one: Any, kind: int, lanes: int) -> Any:
    """The loop for one dtype and kind of removal."""
    of_head, of_key = type(one)(LEAST_OF_HEAD), type(one)(LEAST_OF_KEY)

    @c_loop
    def outer_forward(table: Any) -> None:
        widest()
        heads, K, V, wide = table[HEADER.heads], table[HEADER.K], table[HEADER.V], table[HEADER.wide]
        least = of_key if table[HEADER.each] else of_head
        s = scratch_of(table, one)
        rows, size = move(s, V * wide), V * wide
        r0 = take(table)
        while r0 < table[HEADER.all]:
            for r in range(r0, min(r0 + table[HEADER.many], table[HEADER.all])):
                b, h = r // heads, r % heads
                inputs, state = inputs_of(table, b, h), array_of(table, 8, b, h)
                ys, last = array_of(table, 9, b, h), array_of(table, 10, b, h)
                enter(now(state, 0, one), K, V, wide, s, one)
                for t in range(table[HEADER.T]):
                    if is_wiped(inputs[6], t):
                        clear(s, size, one)
                    if inputs[7][0] != 0 and t % EVERY == 0:
                        copy(s, size, now(inputs[7], t // EVERY, one))
                    ask_inputs(table, inputs, min(t + AHEAD, table[HEADER.T] - 1), lanes, one)
                    ask(ys, min(t + AHEAD, table[HEADER.T] - 1), V, lanes, one)
                    reads = read(kind, table, inputs, t, least, rows, lanes, one)
                    if table[HEADER.exclusive]:
                        _answer(table, reads[1], s, now(ys, t, one), lanes, one)
                    step(kind, table, reads, s, now(inputs[2], t, one), s, lanes, one)
                    if not table[HEADER.exclusive]:
                        _answer(table, reads[1], s, now(ys, t, one), lanes, one)
                leave(s, K, V, wide, now(last, 0, one))
            r0 = take(table)

    return outer_forward
