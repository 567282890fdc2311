"""The LSTM of torch.nn on the CPU: a matrix product and one pass over the gates for each step, both ways.

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
    def lstm_step_forward(table: Any) -> None:
        widest()
        B, block, D, t = table[1], table[2], table[4], table[5]
        projected, recurred, gates, h_before, c_before = five_arrays(table, 0)
        y, start = array(table, 5), array(table, 6)
        b0 = take(table)
        while b0 < B:
            for b in range(b0, min(b0 + block, B)):
                x, u, saved = row(projected, t, b, one), row(recurred, 0, b, one), row(gates, t, b, one)
                old, out = row(c_before, t, b, one), row(y, t, b, one)
                h_next, c_next = row(h_before, t + 1, b, one), row(c_before, t + 1, b, one)
                wiped = starts(start, t + 1)[b] != 0
                for d in range(D):
                    i = sigmoid(load(x, d, INPUT) + load(u, d, INPUT), one)
                    f = sigmoid(load(x, d + D, INPUT) + load(u, d + D, INPUT), one)
                    p, q = tanh(load(x, d + 2 * D, INPUT) + load(u, d + 2 * D, INPUT))
                    o = sigmoid(load(x, d + 3 * D, INPUT) + load(u, d + 3 * D, INPUT), one)
                    g = p / q
                    c = f * load(old, d, INPUT) + i * g
                    p, q = tanh(c)
                    h = o * (p / q)
                    store(saved, d, i, CARRY)
                    store(saved, d + D, f, FIRST)
                    store(saved, d + 2 * D, g, SECOND)
                    store(saved, d + 3 * D, o, THIRD)
                    store(out, d, h, FOURTH)
                    store(h_next, d, one - one if wiped else h, FIFTH)
                    store(c_next, d, one - one if wiped else c, SIXTH)
            b0 = take(table)

    return lstm_step_forward


def _backward(one: Any) -> Any:
    @c_loop
    def lstm_step_backward(table: Any) -> None:
        widest()
        B, block, D, t = table[1], table[2], table[4], table[5]
        grad, gates, c_before, grad_gates, grad_h = five_arrays(table, 0)
        grad_c, start = array(table, 5), array(table, 6)
        b0 = take(table)
        while b0 < B:
            for b in range(b0, min(b0 + block, B)):
                dy, saved, old = row(grad, t, b, one), row(gates, t, b, one), row(c_before, t, b, one)
                out, dh, dc = row(grad_gates, t, b, one), row(grad_h, 0, b, one), row(grad_c, 0, b, one)
                keep = one - one if starts(start, t + 1)[b] else one
                for d in range(D):
                    i, f = load(saved, d, INPUT), load(saved, d + D, INPUT)
                    g, o = load(saved, d + 2 * D, INPUT), load(saved, d + 3 * D, INPUT)
                    c = load(old, d, INPUT)
                    p, q = tanh(f * c + i * g)
                    squashed = p / q
                    to_h = load(dy, d, INPUT) + keep * load(dh, d, INPUT)
                    to_c = keep * load(dc, d, CARRY) + to_h * o * (one - squashed * squashed)
                    store(out, d, to_c * g * i * (one - i), FIRST)
                    store(out, d + D, to_c * c * f * (one - f), SECOND)
                    store(out, d + 2 * D, to_c * i * (one - g * g), THIRD)
                    store(out, d + 3 * D, to_h * squashed * o * (one - o), FOURTH)
                    store(dc, d, to_c * f, CARRY)
            b0 = take(table)

    return lstm_step_backward


@functools.cache
def _loops(dtype: torch.dtype) -> tuple[Loop, Loop]:
    return Loop(_forward(ONE[dtype])), Loop(_backward(ONE[dtype]))


class LSTMSequence(torch.autograd.Function):
    """(projected [T, B, 4H], h, c [B, H], start [T, B], weight [4H, H]) -> (y [T, B, H], h, c [B, H])."""

    @staticmethod
    def forward(
        ctx: Any, projected: Tensor, h: Tensor, c: Tensor, start: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        T, B, H = projected.shape[0], *h.shape
        dtype = h.dtype
        projected = projected.contiguous()
        start = torch.cat([start, start.new_zeros(1, B)])  # nothing is wiped after the end
        h_before, c_before = (empty(T + 1, B, H, dtype=dtype) for _ in range(2))
        y, gates = empty(T, B, H, dtype=dtype), empty(T, B, 4 * H, dtype=dtype)
        recurred = torch.empty(B, 4 * H, dtype=dtype)
        for first, state in ((h_before[0], h), (c_before[0], c)):
            torch.where(start[0].unsqueeze(-1), state.new_zeros(()), state, out=first)
        transposed = weight.t().contiguous()  # read T times, and small products like it better
        arrays = (projected, recurred.unsqueeze(0), gates, h_before, c_before, y, start.unsqueeze(-1))
        table, threads = step_table(arrays, T, B, H)
        run, steps = _loops(dtype)[0].run, h_before.unbind(0)
        for t in range(T):
            torch.mm(steps[t], transposed, out=recurred)
            table[0], table[5] = 0, t
            run(table, threads)
        ctx.save_for_backward(h_before, c_before, gates, start, weight)
        return y, h_before[T].clone(), c_before[T].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dh_last: Tensor, dc_last: Tensor) -> tuple[Tensor | None, ...]:
        h_before, c_before, gates, start, weight = ctx.saved_tensors
        T, B, H = dy.shape
        dy, weight = dy.contiguous(), weight.contiguous()
        dgates = empty(T, B, 4 * H, dtype=dy.dtype)
        dh, dc = (x.clone(memory_format=torch.contiguous_format) for x in (dh_last, dc_last))
        arrays = (dy, gates, c_before, dgates, dh.unsqueeze(0), dc.unsqueeze(0), start.unsqueeze(-1))
        table, threads = step_table(arrays, T, B, H)
        run, steps = _loops(dy.dtype)[1].run, dgates.unbind(0)
        for t in range(T - 1, -1, -1):
            table[0], table[5] = 0, t
            run(table, threads)
            torch.mm(steps[t], weight, out=dh)
        dweight = dgates.view(T * B, 4 * H).t() @ h_before[:T].view(T * B, H)
        wiped = start[0].unsqueeze(-1)
        return dgates, dh.masked_fill_(wiped, 0), dc.masked_fill_(wiped, 0), None, dweight
