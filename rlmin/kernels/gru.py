"""The GRU of torch.nn on the CPU: a matrix product and one pass over the gates for each step, both ways.

The table of a loop is described in `cpu_math.py`; its option is the step t.
"""

import functools
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rlmin.scan.cpu import step_table
from rlmin.scan.cpu_loops import ONE
from rlmin.scan.cpu_math import (
    CARRY,
    FIFTH,
    FIRST,
    FOURTH,
    INPUT,
    SECOND,
    SIXTH,
    THIRD,
    array,
    c_loop,
    five_arrays,
    load,
    row,
    sigmoid,
    starts,
    store,
    take,
    tanh,
    widest,
)
from rlmin.scan.cpu_memory import empty
from rlmin.scan.cpu_threads import Loop


def _forward(one: Any) -> Any:
    @c_loop
    def gru_step_forward(table: Any) -> None:
        widest()
        B, block, D, t = table[1], table[2], table[4], table[5]
        projected, recurred, bias, gates, before = five_arrays(table, 0)
        y, start = array(table, 5), array(table, 6)
        b0 = take(table)
        while b0 < B:
            for b in range(b0, min(b0 + block, B)):
                x, u, w = row(projected, t, b, one), row(recurred, 0, b, one), row(bias, 0, 0, one)
                old, out, saved = row(before, t, b, one), row(y, t, b, one), row(gates, t, b, one)
                into, wiped = row(before, t + 1, b, one), starts(start, t + 1)[b] != 0
                for d in range(D):
                    hn = load(u, d + 2 * D, INPUT) + load(w, d + 2 * D, INPUT)
                    r = sigmoid(load(x, d, INPUT) + load(u, d, INPUT) + load(w, d, INPUT), one)
                    z = sigmoid(load(x, d + D, INPUT) + load(u, d + D, INPUT) + load(w, d + D, INPUT), one)
                    p, q = tanh(load(x, d + 2 * D, INPUT) + r * hn)
                    n = p / q
                    h = n + z * (load(old, d, INPUT) - n)
                    store(saved, d, r, FIRST)
                    store(saved, d + D, z, SECOND)
                    store(saved, d + 2 * D, n, THIRD)
                    store(saved, d + 3 * D, hn, FOURTH)
                    store(out, d, h, FIFTH)
                    store(into, d, one - one if wiped else h, SIXTH)
            b0 = take(table)

    return gru_step_forward


def _backward(one: Any) -> Any:
    @c_loop
    def gru_step_backward(table: Any) -> None:
        widest()
        B, block, D, t = table[1], table[2], table[4], table[5]
        grad, gates, before, projected, recurred = five_arrays(table, 0)
        carry, start = array(table, 5), array(table, 6)
        b0 = take(table)
        while b0 < B:
            for b in range(b0, min(b0 + block, B)):
                dy, saved, old = row(grad, t, b, one), row(gates, t, b, one), row(before, t, b, one)
                dx, du, rest = row(projected, t, b, one), row(recurred, t, b, one), row(carry, 0, b, one)
                keep = one - one if starts(start, t + 1)[b] else one
                for d in range(D):
                    r, z = load(saved, d, INPUT), load(saved, d + D, INPUT)
                    n, hn = load(saved, d + 2 * D, INPUT), load(saved, d + 3 * D, INPUT)
                    g = load(dy, d, INPUT) + keep * load(rest, d, CARRY)
                    dn = g * (one - z) * (one - n * n)
                    dz = g * (load(old, d, INPUT) - n) * z * (one - z)
                    dr = dn * hn * r * (one - r)
                    store(dx, d, dr, FIRST)
                    store(dx, d + D, dz, SECOND)
                    store(dx, d + 2 * D, dn, THIRD)
                    store(du, d, dr, FOURTH)
                    store(du, d + D, dz, FIFTH)
                    store(du, d + 2 * D, dn * r, SIXTH)
                    store(rest, d, g * z, CARRY)
            b0 = take(table)

    return gru_step_backward


@functools.cache
def _loops(dtype: torch.dtype) -> tuple[Loop, Loop]:
    return Loop(_forward(ONE[dtype])), Loop(_backward(ONE[dtype]))


class GRUSequence(torch.autograd.Function):
    """(projected [T, B, 3H], state [B, H], start [T, B], weight [3H, H], bias [3H]) -> (y [T, B, H], last [B, H])."""

    @staticmethod
    def forward(
        ctx: Any, projected: Tensor, state: Tensor, start: Tensor, weight: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        T, B, H = projected.shape[0], *state.shape
        dtype = state.dtype
        projected, bias = projected.contiguous(), bias.contiguous()
        start = torch.cat([start, start.new_zeros(1, B)])  # nothing is wiped after the end
        before, y = empty(T + 1, B, H, dtype=dtype), empty(T, B, H, dtype=dtype)
        gates, recurred = empty(T, B, 4 * H, dtype=dtype), torch.empty(B, 3 * H, dtype=dtype)
        torch.where(start[0].unsqueeze(-1), state.new_zeros(()), state, out=before[0])
        transposed = weight.t().contiguous()  # read T times, and small products like it better
        arrays = (projected, recurred.unsqueeze(0), bias.view(1, 1, -1), gates, before, y, start.unsqueeze(-1))
        table, threads = step_table(arrays, T, B, H)
        run = _loops(dtype)[0].run
        steps = before.unbind(0)
        for t in range(T):
            torch.mm(steps[t], transposed, out=recurred)
            table[0], table[5] = 0, t
            run(table, threads)
        ctx.save_for_backward(before, gates, start, weight)
        return y, before[T].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dlast: Tensor) -> tuple[Tensor | None, ...]:
        before, gates, start, weight = ctx.saved_tensors
        T, B, H = dy.shape
        dtype = dy.dtype
        dy, weight = dy.contiguous(), weight.contiguous()
        dprojected, drecurred = empty(T, B, 3 * H, dtype=dtype), empty(T, B, 3 * H, dtype=dtype)
        carry = dlast.clone(memory_format=torch.contiguous_format)
        arrays = (dy, gates, before, dprojected, drecurred, carry.unsqueeze(0), start.unsqueeze(-1))
        table, threads = step_table(arrays, T, B, H)
        run, steps = _loops(dtype)[1].run, drecurred.unbind(0)
        for t in range(T - 1, -1, -1):
            table[0], table[5] = 0, t
            run(table, threads)
            carry.addmm_(steps[t], weight)
        flat = drecurred.view(T * B, 3 * H)
        dweight = flat.t() @ before[:T].view(T * B, H)
        return dprojected, carry.masked_fill_(start[0].unsqueeze(-1), 0), None, dweight, flat.sum(0)
