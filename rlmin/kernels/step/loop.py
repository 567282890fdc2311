"""The step of a stack as one loop over its rows, which threads share.

A step of B rows is some forty small operations. Called from Python, each but the products costs more than its work, and
a loop between two products would lose its gain to the calls. So the whole step is one loop (see
`rlmin.encoders.Stack.step` for its equations). It can include the layers of a policy around its stack: two layers
before it, and linear heads that read y. `table.py` describes the argument of the loop.
"""

import functools
from typing import Any

import numpy as np
import torch

from rlmin.kernels.step.pieces import AVERAGES, add, convolve, normalise, remember, silu
from rlmin.kernels.step.product import product
from rlmin.kernels.step.table import BLOCK, BLOCKS, EACH_BLOCK, EACH_HEAD, HEAD, HEADER
from rlmin.scan.cpu_loops import ONE
from rlmin.scan.cpu_math import ACTIVATION_CODES, c_loop, inline, row, take, widest
from rlmin.scan.cpu_threads import Loop

_INTEGER, _BYTE = np.int64(1), np.uint8(1)


def room(rows: int, H: int, widest: int) -> int:
    """Elements of scratch of a thread that takes `rows` at once; widest: outputs of a layer inside."""
    return rows * (2 * H + widest)


@inline
def _at(address: Any, offset: Any, one: Any) -> Any:
    """Pointer to element `offset` of the array at `address`."""
    return row((address, 0, 1), 0, offset, one)


@inline
def _enter(table: Any, b0: Any, rows: Any, base: Any, one: Any) -> None:
    """x = embed(silu(front(input))), for rows from b0; x is at element `base` of the scratch."""
    H, D, G, x = table[HEADER.H], table[HEADER.D], table[HEADER.G], _at(table[HEADER.scratch], base, one)
    given = _at(table[HEADER.x], b0 * (H if D == 0 else D), one)
    if D == 0:
        for d in range(rows * H):
            x[d] = given[d]
        return
    if G != 0:
        hidden = base + 2 * rows * H
        wide = _at(table[HEADER.scratch], hidden, one)
        product(table[HEADER.routine], given, _at(table[HEADER.front_weight], 0, one), wide, rows, D, G, one - one)
        for r in range(rows):
            silu(_at(table[HEADER.scratch], hidden + r * G, one), _at(table[HEADER.front_bias], 0, one), G, one)
        given, D = wide, G
    product(table[HEADER.routine], given, _at(table[HEADER.embed_weight], 0, one), x, rows, D, H, one - one)
    for r in range(rows):
        add(_at(table[HEADER.scratch], base + r * H, one), _at(table[HEADER.embed_bias], 0, one), H)


@inline
def _read(table: Any, block: Any, b0: Any, rows: Any, base: Any, numbers: Any, one: Any) -> None:
    """y = conv(norm(x)), for rows from b0; y lies behind x."""
    H, width, kind, scratch = table[HEADER.H], table[HEADER.width], table[HEADER.norm], table[HEADER.scratch]
    gamma, beta = _at(table[block + BLOCK.norm_weight], 0, one), _at(table[block + BLOCK.norm_bias], 0, one)
    weight, bias = _at(table[block + BLOCK.conv_weight], 0, one), _at(table[block + BLOCK.conv_bias], 0, one)
    flags = _at(table[HEADER.start], b0, _BYTE)
    held = (width - 1) * H
    for r in range(rows):
        x, y = _at(scratch, base + r * H, one), _at(scratch, base + (rows + r) * H, one)
        if width == 0:
            normalise(kind, x, gamma, beta, y, H, numbers, one)
        else:
            at = (b0 + r) * held
            seen, after = _at(table[block + BLOCK.seen], at, one), _at(table[block + BLOCK.seen_after], at, one)
            normalise(kind, x, gamma, beta, after, H, numbers, one)
            convolve(after, seen, after, weight, bias, y, flags[r] != 0, width, H, one)


@inline
def _feed(table: Any, block: Any, rows: Any, base: Any, numbers: Any, one: Any) -> None:
    """x += W2 silu(W1 norm(x) + b1) + b2."""
    H, F, scratch, routine = table[HEADER.H], table[HEADER.F], table[HEADER.scratch], table[HEADER.routine]
    gamma, beta = _at(table[block + BLOCK.mlp_norm_weight], 0, one), _at(table[block + BLOCK.mlp_norm_bias], 0, one)
    b1, b2 = _at(table[block + BLOCK.mlp_0_bias], 0, one), _at(table[block + BLOCK.mlp_2_bias], 0, one)
    x, y = _at(scratch, base, one), _at(scratch, base + rows * H, one)
    hidden = _at(scratch, base + 2 * rows * H, one)
    for r in range(rows):
        now = _at(scratch, base + r * H, one)
        normalise(table[HEADER.norm], now, gamma, beta, _at(scratch, base + (rows + r) * H, one), H, numbers, one)
        add(now, b2, H)
    product(routine, y, _at(table[block + BLOCK.mlp_0_weight], 0, one), hidden, rows, H, F, one - one)
    for r in range(rows):
        silu(_at(scratch, base + 2 * rows * H + r * F, one), b1, F, one)
    product(routine, hidden, _at(table[block + BLOCK.mlp_2_weight], 0, one), x, rows, F, H, one)


@inline
def _leave(table: Any, b0: Any, rows: Any, base: Any, numbers: Any, one: Any) -> None:
    """y = norm(x), and the output of each head, for rows from b0."""
    H, scratch = table[HEADER.H], table[HEADER.scratch]
    gamma, beta = _at(table[HEADER.norm_weight], 0, one), _at(table[HEADER.norm_bias], 0, one)
    inside = base + rows * H
    y = _at(scratch, inside, one) if table[HEADER.y] == 0 else _at(table[HEADER.y], b0 * H, one)
    for r in range(rows):
        now = _at(scratch, inside + r * H, one) if table[HEADER.y] == 0 else _at(table[HEADER.y], (b0 + r) * H, one)
        normalise(table[HEADER.norm], _at(scratch, base + r * H, one), gamma, beta, now, H, numbers, one)
    for i in range(table[HEADER.heads]):
        head = BLOCKS + table[HEADER.layers] * EACH_BLOCK + i * EACH_HEAD
        n, bias = table[head + HEAD.outputs], _at(table[head + HEAD.bias], 0, one)
        weight, projected = _at(table[head + HEAD.weight], 0, one), _at(table[head + HEAD.projected], b0 * n, one)
        product(table[HEADER.routine], y, weight, projected, rows, H, n, one - one)
        for r in range(rows):
            add(_at(table[head + HEAD.projected], (b0 + r) * n, one), bias, n)


def _stack_step(one: Any, average: int, parts: int, activation: int) -> Any:
    @c_loop
    def stack_step(table: Any) -> None:
        widest()
        B, many, H, scratch = table[HEADER.rows], table[HEADER.many], table[HEADER.H], table[HEADER.scratch]
        base = take(_at(table[HEADER.threads], 0, _INTEGER)) * table[HEADER.room]
        numbers = _at(table[HEADER.numbers], 0, one)
        b0 = take(table)
        while b0 < B:
            rows = min(many, B - b0)
            _enter(table, b0, rows, base, one)
            wide = base + 2 * rows * H
            for i in range(table[HEADER.layers]):
                block = BLOCKS + i * EACH_BLOCK
                _read(table, block, b0, rows, base, numbers, one)
                y = _at(scratch, base + rows * H, one)
                weight = _at(table[block + BLOCK.mixer_projection_weight], 0, one)
                product(table[HEADER.routine], y, weight, _at(scratch, wide, one), rows, H, parts * H, one - one)
                for r in range(rows):
                    at, bias = (b0 + r) * H, _at(table[block + BLOCK.mixer_projection_bias], 0, one)
                    memory = _at(table[block + BLOCK.memory], at, one)
                    after = _at(table[block + BLOCK.memory_after], at, one)
                    x, wiped = _at(scratch, base + r * H, one), _at(table[HEADER.start], b0 + r, _BYTE)[0] != 0
                    projected = _at(scratch, wide + r * parts * H, one)
                    remember(average, parts, activation, projected, bias, memory, after, x, wiped, H, one)
                if table[HEADER.F] != 0:
                    _feed(table, block, rows, base, numbers, one)
            _leave(table, b0, rows, base, numbers, one)
            b0 = take(table)

    return stack_step


@functools.cache
def loop(dtype: torch.dtype, average: str, parts: int, activation: str) -> Loop:
    """The step of stacks whose cell remembers by this average, compiled when it is first asked for."""
    return Loop(_stack_step(ONE[dtype], AVERAGES[average], parts, ACTIVATION_CODES[activation]))
