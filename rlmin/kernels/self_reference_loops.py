"""The numba loops of `self_reference.py`: one head of one row after the other, step by step, its matrix in cache.

The table is that of `rlmin.scan.outer_loops`, with V rows of K elements in a matrix. The forward loop keeps the matrix
before every `EVERY`-th step; the backward loop computes those between them again, from the last stretch to the first.
"""

import functools
from typing import Any

import torch

from rlmin.scan.cpu_loops import ONE
from rlmin.scan.cpu_math import c_loop, exp, inline, move, sigmoid, take, widest
from rlmin.scan.cpu_threads import Loop
from rlmin.scan.cpu_vector import LANES, plus, put, spread, total, vector
from rlmin.scan.outer_loops import EVERY, HEADER, array_of, clear, copy, is_wiped, now, scratch_of


def room(wide: int, rows: int) -> int:
    """Elements of scratch of a thread: matrices of some steps with what these computed, a gradient, and vectors."""
    return (EVERY + 2) * wide * rows + EVERY * (2 * rows + 3 * wide + 4) + 4 * wide + 2 * rows


@inline
def _room_of_step(wide: Any, rows: Any) -> Any:
    """Elements that a step computes: y, q, k, b before activations; the gaps; q, k and their difference; the rates."""
    return 2 * rows + 3 * wide + 4


@inline
def _fill(x: Any, rows: Any, K: Any, wide: Any, y: Any, one: Any) -> None:
    """y [rows, wide] = x [rows, K] and zeros."""
    for i in range(rows):
        copy(move(x, i * K), K, move(y, i * wide))
        clear(move(y, i * wide + K), wide - K, one)


@inline
def _strip(x: Any, rows: Any, K: Any, wide: Any, y: Any) -> None:
    """y [rows, K] = x [rows, wide] without its end."""
    for i in range(rows):
        copy(move(x, i * wide), K, move(y, i * K))


@inline
def _product(base: Any, s: Any, u: Any, place: Any, wide: Any, lanes: Any, one: Any) -> Any:
    """(base + s) . u, of the rows at `place`."""
    found, unit = spread(one - one), spread(one)
    for k in range(0, wide, lanes):
        found = plus(found, plus(vector(base, place + k), vector(s, place + k), unit), vector(u, k))
    return total(found)


@inline
def _soften(x: Any, K: Any, wide: Any, lanes: Any, y: Any, one: Any) -> None:
    """y = softmax(x [K]), and zeros up to `wide`."""
    most, share = x[0], one - one
    for k in range(1, K):
        most = x[k] if x[k] > most or x[k] != x[k] else most
    copy(x, K, y)
    for k in range(K, wide):
        y[k] = most
    for k in range(0, wide, lanes):
        for i in range(lanes):  # a number that LLVM knows
            y[k + i] = exp(y[k + i] - most)
    for k in range(K):
        share += y[k]
    for k in range(K):
        y[k] = y[k] / share
    clear(move(y, K), wide - K, one)


@inline
def _step(table: Any, base: Any, s: Any, u: Any, held: Any, after: Any, lanes: Any, one: Any) -> None:
    """after = s + (rates * gap) k'; `held` gets all that the step computes, see `_room_of_step`."""
    K, rows, wide = table[HEADER.K], table[HEADER.V], table[HEADER.wide]
    gaps = move(held, rows)
    q, k, difference = move(gaps, rows), move(gaps, rows + wide), move(gaps, rows + 2 * wide)
    rates = move(difference, wide)
    for i in range(rows):
        held[i] = _product(base, s, u, i * wide, wide, lanes, one)
    _soften(move(held, K), K, wide, lanes, q, one)
    _soften(move(held, 2 * K), K, wide, lanes, k, one)
    for j in range(wide):
        difference[j] = q[j] - k[j]
    for m in range(4):
        rates[m] = sigmoid(held[3 * K + m], one)
        for i in range(m * K, m * K + K if m < 3 else rows):
            gaps[i] = _product(base, s, difference, i * wide, wide, lanes, one)
            change = spread(rates[m] * gaps[i])
            for j in range(0, wide, lanes):
                put(after, i * wide + j, plus(vector(s, i * wide + j), vector(k, j), change))


def _forward(one: Any, lanes: int) -> Any:
    @c_loop
    def self_reference_forward(table: Any) -> None:
        widest()
        heads, K, rows, wide = table[HEADER.heads], table[HEADER.K], table[HEADER.V], table[HEADER.wide]
        s, size = scratch_of(table, one), rows * wide
        u, held = move(s, size), move(s, size + wide)
        r0 = take(table)
        while r0 < table[HEADER.all]:
            for r in range(r0, min(r0 + table[HEADER.many], table[HEADER.all])):
                b, h = r // heads, r % heads
                us, base, start = (
                    array_of(table, 0, b, h),
                    now(array_of(table, 1, b, h), 0, one),
                    array_of(table, 2, b, h),
                )
                kept, state = array_of(table, 3, b, h), now(array_of(table, 4, b, h), 0, one)
                ys, last = array_of(table, 5, b, h), now(array_of(table, 6, b, h), 0, one)
                _fill(state, rows, K, wide, s, one)
                for t in range(table[HEADER.T]):
                    if is_wiped(start, t):
                        clear(s, size, one)
                    if kept[0] != 0 and t % EVERY == 0:
                        copy(s, size, now(kept, t // EVERY, one))
                    _fill(now(us, t, one), 1, K, wide, u, one)
                    _step(table, base, s, u, held, s, lanes, one)
                    copy(held, K, now(ys, t, one))
                _strip(s, rows, K, wide, last)
            r0 = take(table)

    return self_reference_forward


@inline
def _rebuild(
    table: Any, arrays: Any, base: Any, t0: Any, t1: Any, s: Any, held: Any, u: Any, lanes: Any, one: Any
) -> None:
    """The matrices that enter steps t0 to t1 - 1, one after the other in s, and what these steps compute in `held`.

    The one behind the last is written too.
    """
    us, start, kept = arrays
    K, wide, size = table[HEADER.K], table[HEADER.wide], table[HEADER.V] * table[HEADER.wide]
    copy(now(kept, t0 // EVERY, one), size, s)
    for t in range(t0, t1):
        after = move(s, (t + 1 - t0) * size)
        _fill(now(us, t, one), 1, K, wide, u, one)
        of_step = move(held, (t - t0) * _room_of_step(wide, table[HEADER.V]))
        _step(table, base, move(s, (t - t0) * size), u, of_step, after, lanes, one)
        if t + 1 < t1 and is_wiped(start, t + 1):
            clear(after, size, one)


@inline
def _harden(x: Any, dx: Any, K: Any, out: Any, one: Any) -> None:
    """out = the gradient of what x is the softmax of, dx that of x."""
    mean = one - one
    for k in range(K):
        mean += x[k] * dx[k]
    for k in range(K):
        out[k] = x[k] * (dx[k] - mean)


@inline
def _gather(
    table: Any, base: Any, s: Any, g: Any, held: Any, vectors: Any, of_gap: Any, of_z: Any, lanes: Any, one: Any
) -> None:
    """The gradients of the gaps and of y, q, k and b before activations; that of y is in `of_z` already."""
    K, rows, wide = table[HEADER.K], table[HEADER.V], table[HEADER.wide]
    gaps = move(held, rows)
    q, k, rates = move(gaps, rows), move(gaps, rows + wide), move(gaps, rows + 3 * wide)
    of_q, of_k = vectors, move(vectors, wide)
    clear(of_q, 2 * wide, one)
    unit = spread(one)
    for m in range(4):
        of_rate = one - one
        for i in range(m * K, m * K + K if m < 3 else rows):
            found, written, at = spread(one - one), spread(rates[m] * gaps[i]), i * wide
            for j in range(0, wide, lanes):
                found = plus(found, vector(g, at + j), vector(k, j))
                put(of_k, j, plus(vector(of_k, j), vector(g, at + j), written))
            pulled = total(found)
            of_rate += pulled * gaps[i]
            of_gap[i] = pulled * rates[m]
            back = spread(of_gap[i])
            for j in range(0, wide, lanes):
                put(of_q, j, plus(vector(of_q, j), plus(vector(base, at + j), vector(s, at + j), unit), back))
        of_z[3 * K + m] = of_rate * rates[m] * (one - rates[m])
    for j in range(K):
        of_k[j] -= of_q[j]
    _harden(q, of_q, K, move(of_z, K), one)
    _harden(k, of_k, K, move(of_z, 2 * K), one)


@inline
def _spread_back(
    table: Any,
    base: Any,
    s: Any,
    g: Any,
    u: Any,
    difference: Any,
    of_gap: Any,
    of_z: Any,
    of_u: Any,
    of_base: Any,
    lanes: Any,
    one: Any,
) -> None:
    """The gradients of the matrix that entered, in g; those of u and, added, of the base."""
    wide, unit = table[HEADER.wide], spread(one)
    for k in range(0, wide, lanes):
        to_u, x, y = spread(one - one), vector(u, k), vector(difference, k)
        for i in range(table[HEADER.V]):
            at, gap, z = i * wide + k, spread(of_gap[i]), spread(of_z[i])
            to_u = plus(to_u, plus(vector(base, at), vector(s, at), unit), z)
            put(g, at, plus(plus(vector(g, at), y, gap), x, z))
            put(of_base, at, plus(plus(vector(of_base, at), y, gap), x, z))
        put(of_u, k, to_u)


def _backward(one: Any, lanes: int) -> Any:
    @c_loop
    def self_reference_backward(table: Any) -> None:
        widest()
        T, heads, K, rows, wide = (
            table[HEADER.T],
            table[HEADER.heads],
            table[HEADER.K],
            table[HEADER.V],
            table[HEADER.wide],
        )
        s, size = scratch_of(table, one), rows * wide
        held = move(s, (EVERY + 1) * size)
        g = move(held, EVERY * _room_of_step(wide, rows))
        u, of_u, of_gap, of_z = (
            move(g, size),
            move(g, size + wide),
            move(g, size + 4 * wide),
            move(g, size + 4 * wide + rows),
        )
        vectors = move(g, size + 2 * wide)
        r0 = take(table)
        while r0 < table[HEADER.all]:
            for r in range(r0, min(r0 + table[HEADER.many], table[HEADER.all])):
                b, h = r // heads, r % heads
                arrays = array_of(table, 0, b, h), array_of(table, 2, b, h), array_of(table, 3, b, h)
                base, carry = now(array_of(table, 1, b, h), 0, one), now(array_of(table, 4, b, h), 0, one)
                grads, outs = array_of(table, 5, b, h), array_of(table, 6, b, h)
                of_base = now(array_of(table, 7, b, h), 0, one)
                clear(of_base, size, one)
                _fill(carry, rows, K, wide, g, one)
                for t0 in range((T - 1) // EVERY * EVERY, -1, -EVERY):
                    t1 = min(T, t0 + EVERY)
                    _rebuild(table, arrays, base, t0, t1, s, held, u, lanes, one)
                    for t in range(t1 - 1, t0 - 1, -1):
                        old, of_step = move(s, (t - t0) * size), move(held, (t - t0) * _room_of_step(wide, rows))
                        _fill(now(arrays[0], t, one), 1, K, wide, u, one)
                        copy(now(grads, t, one), K, of_z)
                        _gather(table, base, old, g, of_step, vectors, of_gap, of_z, lanes, one)
                        difference = move(of_step, 2 * rows + 2 * wide)
                        _spread_back(table, base, old, g, u, difference, of_gap, of_z, of_u, of_base, lanes, one)
                        copy(of_u, K, now(outs, t, one))
                        if is_wiped(arrays[1], t):
                            clear(g, size, one)
                _strip(g, rows, K, wide, carry)
            r0 = take(table)

    return self_reference_backward


_FACTORIES = {"forward": _forward, "backward": _backward}


@functools.cache
def loop(way: str, dtype: torch.dtype) -> Loop:
    """The loop of this way, compiled when it is first asked for."""
    return Loop(_FACTORIES[way](ONE[dtype], LANES[dtype]))
