"""The numba loop of `outer_scan` on the CPU, backward.

It needs the memory before each step. The forward loop kept every `EVERY`-th, and those between them are computed again,
from the last stretch to the first. A step back is two passes over the memory: `_pull` finds what the gradient is for
each column of S, and `_push` goes from columns to rows, where sums over columns stay in registers.
"""

import functools
from typing import Any

import torch

from rlmin.scan.cpu_loops import ONE
from rlmin.scan.cpu_math import c_loop, inline, move, take, widest
from rlmin.scan.cpu_threads import Loop
from rlmin.scan.cpu_vector import LANES, plus, put, spread, times, total, vector
from rlmin.scan.outer_chunks import LEAST_OF_HEAD, LEAST_OF_KEY
from rlmin.scan.outer_loops import (
    AHEAD,
    EVERY,
    HEADER,
    REMOVE,
    VECTORS,
    WRITE,
    array_of,
    ask,
    ask_inputs,
    clear,
    copy,
    dot,
    dot_decayed,
    enter,
    forward,
    inputs_of,
    is_wiped,
    leave,
    now,
    read,
    scratch_of,
    step,
)


@inline
def _grads_of(table: Any, b: Any, h: Any) -> Any:
    """The gradients in head h of row b: of y, query, key, value, decay, extra and add."""
    first = array_of(table, 8, b, h), array_of(table, 9, b, h), array_of(table, 10, b, h), array_of(table, 11, b, h)
    return (*first, array_of(table, 12, b, h), array_of(table, 13, b, h), array_of(table, 14, b, h))


@inline
def _ask_grads(table: Any, grads: Any, t: Any, lanes: Any, one: Any) -> None:
    """Ask for all gradients of step t."""
    K, V = table[HEADER.K], table[HEADER.V]
    ask(grads[0], t, V, lanes, one)
    ask(grads[1], t, K, lanes, one)
    ask(grads[2], t, K, lanes, one)
    ask(grads[3], t, V, lanes, one)
    ask(grads[4], t, K if table[HEADER.each] else 1, lanes, one)
    ask(grads[5], t, K if grads[6][0] != 0 else 1, lanes, one)
    ask(grads[6], t, K, lanes, one)


@inline
def _rebuild(
    kind: Any, table: Any, inputs: Any, t0: Any, t1: Any, s: Any, rows: Any, least: Any, lanes: Any, one: Any
) -> None:
    """The memories that enter steps t0 to t1 - 1 of a head, one after the other in s."""
    size = table[HEADER.V] * table[HEADER.wide]
    copy(now(inputs[7], t0 // EVERY, one), size, s)
    for t in range(t0, t1 - 1):
        ask_inputs(table, inputs, min(t + AHEAD, t1 - 1), lanes, one)
        before, after = move(s, (t - t0) * size), move(s, (t + 1 - t0) * size)
        reads = read(kind, table, inputs, t, least, rows, lanes, one)
        step(kind, table, reads, before, now(inputs[2], t, one), after, lanes, one)
        if is_wiped(inputs[6], t + 1):
            clear(after, size, one)


@inline
def _pull(
    kind: Any,
    table: Any,
    reads: Any,
    s: Any,
    g: Any,
    value: Any,
    dy: Any,
    dvalue: Any,
    columns: Any,
    lanes: Any,
    one: Any,
) -> Any:
    """g += query * dy, then the gradient of the value; fills what `_push` needs; the gradient of a share to write.

    Columns: what was written to or found in each column of S, and behind it the gradient of what was read there.
    """
    a, query, key, extra, add = reads
    V, wide, share = table[HEADER.V], table[HEADER.wide], one - one
    for v in range(V):
        old, of_new = move(s, v * wide), move(g, v * wide)
        of_y, sum_ = spread(one - one if table[HEADER.exclusive] else dy[v]), spread(one - one)
        for k in range(0, wide, lanes):
            whole = plus(vector(of_new, k), vector(query, k), of_y)
            put(of_new, k, whole)
            sum_ = plus(sum_, vector(key, k), whole)
        of_value, written = total(sum_), value[v]
        if kind == REMOVE:
            written = dot(extra, old, wide, lanes, one)
            columns[V + v] = dot(add, of_new, wide, lanes, one)
        if kind == WRITE:
            missed = written - dot_decayed(a, key, old, wide, lanes, one)
            share += of_value * missed
            written, of_value = extra[0] * missed, extra[0] * of_value
            columns[V + v] = -of_value
        columns[v], dvalue[v] = written, of_value
    return share


@inline
def _push(
    kind: Any, table: Any, reads: Any, s: Any, g: Any, columns: Any, dy: Any, outs: Any, lanes: Any, one: Any
) -> None:
    """g = the gradient of s; those of query, key and decay. Back through s' = a * s + key * written."""
    a, query, key, _, _ = reads
    dquery, dkey, da, _, _ = outs
    V, wide = table[HEADER.V], table[HEADER.wide]
    for k in range(0, wide, lanes):
        share, q, x = vector(a, k), vector(query, k), vector(key, k)
        to_query, to_key, to_share = spread(one - one), spread(one - one), spread(one - one)
        for v in range(V):
            place = v * wide + k
            old, of_new, of_y, written = vector(s, place), vector(g, place), spread(dy[v]), spread(columns[v])
            decayed, of_decayed = times(share, old), of_new
            to_key = plus(to_key, of_new, written)
            if kind == WRITE:
                of_read = spread(columns[V + v])
                of_decayed = plus(of_new, x, of_read)
                to_key = plus(to_key, decayed, of_read)
            to_share = plus(to_share, of_decayed, old)
            of_old = times(share, of_decayed)
            if table[HEADER.exclusive]:
                to_query, of_old = plus(to_query, old, of_y), plus(of_old, q, of_y)
            else:
                to_query = plus(to_query, plus(decayed, x, written), of_y)
            put(g, place, of_old)
        put(dquery, k, to_query)
        put(dkey, k, to_key)
        put(da, k, to_share)


@inline
def _push_removed(
    table: Any, reads: Any, s: Any, g: Any, value: Any, columns: Any, dy: Any, outs: Any, lanes: Any, one: Any
) -> None:
    """The same through s' = a * s + add * found + key * value, with found = probe . s."""
    a, query, key, probe, add = reads
    dquery, dkey, da, dprobe, dadd = outs
    V, wide = table[HEADER.V], table[HEADER.wide]
    for k in range(0, wide, lanes):
        share, q, x, y, z = vector(a, k), vector(query, k), vector(key, k), vector(add, k), vector(probe, k)
        to_query, to_key, to_share = spread(one - one), spread(one - one), spread(one - one)
        to_probe, to_add = spread(one - one), spread(one - one)
        for v in range(V):
            place = v * wide + k
            old, of_new, of_y, written = vector(s, place), vector(g, place), spread(dy[v]), spread(value[v])
            found, of_found = spread(columns[v]), spread(columns[V + v])
            to_key, to_add = plus(to_key, of_new, written), plus(to_add, of_new, found)
            to_share, to_probe = plus(to_share, of_new, old), plus(to_probe, old, of_found)
            of_old = plus(times(share, of_new), z, of_found)
            if table[HEADER.exclusive]:
                to_query, of_old = plus(to_query, old, of_y), plus(of_old, q, of_y)
            else:
                to_query = plus(to_query, plus(plus(times(share, old), y, found), x, written), of_y)
            put(g, place, of_old)
        put(dquery, k, to_query)
        put(dkey, k, to_key)
        put(da, k, to_share)
        put(dprobe, k, to_probe)
        put(dadd, k, to_add)


@inline
def _of_decay(g: Any, dg: Any, t: Any, table: Any, least: Any, a: Any, da: Any, one: Any) -> None:
    """dg = da * a, where g was not clipped; summed over K if the head has one decay."""
    if dg[0] == 0:
        return
    K, each = table[HEADER.K], table[HEADER.each]
    log_decay, out, sum_ = now(g, t, one), now(dg, t, one), one - one
    for k in range(K):
        part = one - one if log_decay[k if each else 0] < least else da[k] * a[k]
        sum_ += part
        if each:
            out[k] = part
    if not each:
        out[0] = sum_


@inline
def _back(
    kind: Any, table: Any, inputs: Any, grads: Any, t: Any, s: Any, g: Any, rows: Any, least: Any, lanes: Any, one: Any
) -> None:
    """Back through step t of a head: s is the memory that entered it, and g [V, wide] becomes the gradient of it."""
    K, wide = table[HEADER.K], table[HEADER.wide]
    reads = read(kind, table, inputs, t, least, rows, lanes, one)
    value, dy, columns = now(inputs[2], t, one), now(grads[0], t, one), move(rows, VECTORS * wide)
    share = _pull(kind, table, reads, s, g, value, dy, now(grads[3], t, one), columns, lanes, one)
    direct, held = wide == K, move(rows, 5 * wide)
    dquery = now(grads[1], t, one) if direct else held
    dkey = now(grads[2], t, one) if direct else move(held, wide)
    dprobe = now(grads[5], t, one) if direct else move(held, 2 * wide)
    dadd = now(grads[6], t, one) if direct else move(held, 3 * wide)
    outs = dquery, dkey, move(held, 4 * wide), dprobe, dadd
    if kind == REMOVE:
        _push_removed(table, reads, s, g, value, columns, dy, outs, lanes, one)
    else:
        _push(kind, table, reads, s, g, columns, dy, outs, lanes, one)
    if kind == WRITE:
        now(grads[5], t, one)[0] = share
    if not direct:
        copy(dquery, K, now(grads[1], t, one))
        copy(dkey, K, now(grads[2], t, one))
    if kind == REMOVE and not direct:
        copy(dprobe, K, now(grads[5], t, one))
        copy(dadd, K, now(grads[6], t, one))
    _of_decay(inputs[3], grads[4], t, table, least, reads[0], outs[2], one)


def _backward(one: Any, kind: int, lanes: int) -> Any:
    of_head, of_key = type(one)(LEAST_OF_HEAD), type(one)(LEAST_OF_KEY)

    @c_loop
    def outer_backward(table: Any) -> None:
        widest()
        T, heads, K, V, wide = (
            table[HEADER.T],
            table[HEADER.heads],
            table[HEADER.K],
            table[HEADER.V],
            table[HEADER.wide],
        )
        least = of_key if table[HEADER.each] else of_head
        s, size = scratch_of(table, one), V * wide
        g, rows = move(s, EVERY * size), move(s, (EVERY + 1) * size)
        r0 = take(table)
        while r0 < table[HEADER.all]:
            for r in range(r0, min(r0 + table[HEADER.many], table[HEADER.all])):
                b, h = r // heads, r % heads
                inputs, grads, carry = inputs_of(table, b, h), _grads_of(table, b, h), array_of(table, 15, b, h)
                enter(now(carry, 0, one), K, V, wide, g, one)
                for t0 in range((T - 1) // EVERY * EVERY, -1, -EVERY):
                    t1 = min(T, t0 + EVERY)
                    _rebuild(kind, table, inputs, t0, t1, s, rows, least, lanes, one)
                    for t in range(t1 - 1, t0 - 1, -1):
                        _ask_grads(table, grads, max(0, t - AHEAD), lanes, one)
                        _back(kind, table, inputs, grads, t, move(s, (t - t0) * size), g, rows, least, lanes, one)
                        if is_wiped(inputs[6], t):
                            clear(g, size, one)
                leave(g, K, V, wide, now(carry, 0, one))
            r0 = take(table)

    return outer_backward


_FACTORIES = {"forward": forward, "backward": _backward}


@functools.cache
def loop(way: str, kind: int, dtype: torch.dtype) -> Loop:
    """The loop of this way and kind of removal, compiled when it is first asked for."""
    return Loop(_FACTORIES[way](ONE[dtype], kind, LANES[dtype]))
