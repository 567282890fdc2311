"""One step of `outer_scan` on the CPU, for acting: a loop of numba that reads and writes each memory once.

The memory stays as it comes, [K, V], as turning it around would take longer than the step. V is a whole number of
vectors. The table is that of `outer_loops.py`; its scratch holds a memory of zeros.
"""

import functools
from typing import Any

import torch

from rlmin.scan.cpu_loops import ONE
from rlmin.scan.cpu_math import c_loop, inline, move, take, widest
from rlmin.scan.cpu_threads import Loop
from rlmin.scan.cpu_vector import LANES, plus, put, spread, times, vector
from rlmin.scan.outer_chunks import LEAST_OF_HEAD, LEAST_OF_KEY
from rlmin.scan.outer_loops import (
    HEADER,
    REMOVE,
    WRITE,
    array_of,
    clear,
    inputs_of,
    is_wiped,
    now,
    read,
    scratch_of,
)


@inline
def _step(kind: Any, table: Any, reads: Any, old: Any, value: Any, new: Any, y: Any, lanes: Any, one: Any) -> None:
    """new = the memory after a step, old that before it; y = what the query reads. The kind is a constant."""
    a, query, key, extra, add = reads
    V = table[HEADER.V]
    for v in range(0, V, lanes):
        written, found, answer = vector(value, v), spread(one - one), spread(one - one)
        if kind == WRITE:
            for k in range(table[HEADER.K]):
                found = plus(found, spread(-(a[k] * key[k])), vector(old, k * V + v))
            written = times(spread(extra[0]), plus(written, found, spread(one)))
        if kind == REMOVE:
            for k in range(table[HEADER.K]):
                found = plus(found, spread(extra[k]), vector(old, k * V + v))
        for k in range(table[HEADER.K]):
            before = vector(old, k * V + v)
            after = plus(times(spread(a[k]), before), spread(key[k]), written)
            if kind == REMOVE:
                after = plus(after, spread(add[k]), found)
            put(new, k * V + v, after)
            answer = plus(answer, spread(query[k]), before if table[HEADER.exclusive] else after)
        put(y, v, answer)


def _factory(one: Any, kind: int, lanes: int) -> Any:
    of_head, of_key = type(one)(LEAST_OF_HEAD), type(one)(LEAST_OF_KEY)

    @c_loop
    def outer_step(table: Any) -> None:
        widest()
        heads, size = table[HEADER.heads], table[HEADER.K] * table[HEADER.V]
        least = of_key if table[HEADER.each] else of_head
        nothing = scratch_of(table, one)
        rows = move(nothing, size)
        clear(nothing, size, one)
        r0 = take(table)
        while r0 < table[HEADER.all]:
            for r in range(r0, min(r0 + table[HEADER.many], table[HEADER.all])):
                b, h = r // heads, r % heads
                inputs, state = inputs_of(table, b, h), array_of(table, 8, b, h)
                y, last = now(array_of(table, 9, b, h), 0, one), now(array_of(table, 10, b, h), 0, one)
                old = nothing if is_wiped(inputs[6], 0) else now(state, 0, one)
                reads = read(kind, table, inputs, 0, least, rows, lanes, one)
                _step(kind, table, reads, old, now(inputs[2], 0, one), last, y, lanes, one)
            r0 = take(table)

    return outer_step


@functools.cache
def loop(kind: int, dtype: torch.dtype) -> Loop:
    """The loop of this kind of removal, compiled when it is first asked for."""
    return Loop(_factory(ONE[dtype], kind, LANES[dtype]))
